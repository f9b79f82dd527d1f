"""One step of several optimizers of one kind, in as few calls as their settings allow."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

TOGETHER = ("torch.optim.", "stresslens.plugins.optimizers.")
"""Modules whose optimizers update each parameter by its own gradient and state alone."""


class JointStep:
    """Steps optimizers that update each parameter by itself, and gives the bits that each alone gives.

    Parameter groups with the same settings (learning rate, momentum, ...) are stepped as one. Each
    optimizer keeps its own state. Optimizers of another package, or of several kinds, step one after
    the other.
    """

    def __init__(self, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        self.optimizers = optimizers
        kinds = {type(optimizer) for optimizer in optimizers}
        together = len(kinds) == 1 and kinds.pop().__module__.startswith(TOGETHER)
        self._joint: torch.optim.Optimizer | None = None
        self._settings: list[list[Any]] = []
        if not together:
            return
        self._joint = copy.copy(optimizers[0])
        self._joint.state = defaultdict(dict)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    self._joint.state[parameter] = optimizer.state[parameter]

    def step(self) -> None:
        """Updates the parameters of all optimizers."""
        if self._joint is None:
            for optimizer in self.optimizers:
                optimizer.step()
            return
        groups = [group for optimizer in self.optimizers for group in optimizer.param_groups]
        settings = [[value for key, value in group.items() if key != "params"] for group in groups]
        if any(isinstance(value, Tensor) for values in settings for value in values):
            self._joint.param_groups = groups
        elif settings != self._settings:
            self._settings = settings
            merged: dict[str, dict[str, Any]] = {}
            for group, values in zip(groups, settings):
                one = merged.setdefault(repr(values), {**group, "params": []})
                one["params"] += group["params"]
            self._joint.param_groups = [*merged.values()]
        self._joint.step()
        for optimizer in self.optimizers:
            optimizer._opt_called = True  # type: ignore[attr-defined]  # torch's schedulers ask for it
