from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau

from stresslens.core.types import Natural, NonNegative, Scheduler, Share
from stresslens.plugins.schedules._floor import lowest_share


def plateau(
    optimizer: torch.optim.Optimizer,
    *,
    metric: Literal["loss", "accuracy"] = "loss",
    factor: Share = 0.1,
    patience: Natural = 10,
    threshold: NonNegative = 1e-4,
    cooldown: Natural = 0,
    floor: NonNegative = 0.0,
) -> Scheduler:
    """Multiplies the learning rate by `factor` where the `metric` on validation no longer improves.

    It does so after more than `patience` evaluations in a row that are not better than the best by the
    share `threshold`, and then waits `cooldown` evaluations, as torch's ReduceLROnPlateau, with its
    defaults. The rate stays above `floor`, which belongs to `train.lr`, as in `cosine`.
    """
    lowest = lowest_share(optimizer, floor)
    inner = ReduceLROnPlateau(
        optimizer,
        "min" if metric == "loss" else "max",
        factor=factor,
        patience=patience,
        threshold=threshold,
        cooldown=cooldown,
        min_lr=[lowest * float(group["lr"]) for group in optimizer.param_groups],
    )
    return _OnEvaluation(inner, metric)


def needs_validation() -> bool:
    return True


class _OnEvaluation:
    """A schedule that changes the learning rate after evaluations, and not with the updates."""

    def __init__(self, inner: ReduceLROnPlateau, metric: str) -> None:
        self.inner, self.metric = inner, metric

    def step(self) -> None:
        pass

    def after_evaluation(self, validation: Mapping[str, float]) -> None:
        """Takes the figures of an evaluation on validation into account."""
        self.inner.step(validation[self.metric])

    def state_dict(self) -> dict[str, Any]:
        return self.inner.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.inner.load_state_dict(state_dict)
