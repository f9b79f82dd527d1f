"""Which epoch of a training is kept: the rule, what it needs, and the robust accuracy that
hardening is judged by."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stresslens.config import registry
from stresslens.config.schema import Train
from stresslens.config.validation import objective_of
from stresslens.core.attack_base import attacked
from stresslens.core.ball import Ball
from stresslens.core.data import Data, Split
from stresslens.core.distributed import ALONE, ProcessGroup
from stresslens.core.draws import Draws
from stresslens.core.errors import ConfigError
from stresslens.core.sampling import balanced_subset

ATTACK = {"pgd": {"steps": 10}}
"""What `select: robust` attacks with: PGD from a random start, ten steps of a quarter of the radius."""
IMAGES = 512
BATCH = 128
SELECTION_NAMES = {"accuracy": "accuracy", "loss": "loss", "robust": "robust accuracy"}


def selection_rules(train: Train, data: Data, *, base: Path) -> tuple[str, Sequence[str]]:
    """How the epoch is chosen and which splits are watched, once it is known which splits there are.

    `auto` is the robust accuracy for an objective that hardens, since the clean one picks an epoch
    whose robustness is gone (Rice et al. 2020), else the accuracy, and the last epoch without a
    validation split. Raises ConfigError when a rule needs a split that the data set does not have,
    or a radius that the objective does not name.
    """
    if train.balance == "sampling" and train.batch_size != "full" and train.batch_size >= len(data.train):
        raise ConfigError(
            f"balance: sampling needs batches smaller than the {len(data.train)} training images; lower train.batch_size "
            f"(now {train.batch_size})"
        )
    absent = [name for name in train.watch if name not in data.splits]
    explicit = train.select in ("accuracy", "loss", "robust") or (
        train.stop is not None and train.stop.patience is not None
    )
    if explicit and "validation" not in train.watch:
        raise ConfigError(
            "train.watch needs validation among its splits for this choice of train.select or train.stop"
        )
    if absent and (absent != ["validation"] or explicit):
        wanted = f"train.select: {train.select}" if train.select != "auto" else "train.watch or train.stop"
        raise ConfigError(
            f"{wanted} needs the {absent[0]} split, which {data.name} does not have here; set its `{absent[0]}:` option"
        )
    watch = [name for name in train.watch if name in data.splits]
    hardens = threat(registry.resolve("objectives", objective_of(train), base=base)) is not None
    if train.select == "robust" and not hardens:
        name = registry.name_and_options("objectives", train.objective)[0]
        raise ConfigError(
            f"train.select: robust needs an objective with a norm and a radius to be robust in, which {name} does not have; "
            "set train.objective to one that hardens ({adversarial: {norm: linf, eps: 8/255}}), or select: accuracy"
        )
    if train.select != "auto":
        return train.select, watch
    if "validation" not in watch:
        return "last", watch
    return ("robust" if hardens else "accuracy"), watch


def threat(objective: registry.Bound) -> Ball | None:
    """What an objective hardens against, by its options `norm` and `eps`; None without them. Raises
    ConfigError for no radius."""
    declared = registry.options_of(objective.function)
    if not {"norm", "eps"} <= declared.keys():
        return None
    norm, eps = (objective.options.get(option, declared[option].default) for option in ("norm", "eps"))
    return Ball(norm, eps)


def robust_accuracy(
    objective: registry.Bound, validation: Split | None, *, group: ProcessGroup = ALONE
) -> Callable[[nn.Module], float]:
    """Model → the share of `IMAGES` validation images, as many of each class as there are, that it
    answers right unattacked and at every iterate of `ATTACK`, in the parameters' own precision. The
    images (shared by several processes) and their draws are the same for every epoch."""
    ball = threat(objective)
    assert ball is not None
    assert validation is not None
    rows = balanced_subset(validation.labels.cpu(), min(IMAGES, len(validation)), seed=0)
    sample = validation.select(rows.to(validation.labels.device))
    attack = registry.resolve("attacks", ATTACK)

    def measure(model: nn.Module) -> float:
        dtype = next(model.parameters()).dtype
        with attacked(model):
            batches = sample.batches(BATCH, dtype=dtype, part=group.part)
            standing = [_standing(model, *batch) for batch in batches if len(batch.y)]
        return group.total(sum(standing)) / len(sample)

    def _standing(model: nn.Module, x: Tensor, y: Tensor, places: Tensor) -> int:
        with torch.no_grad():
            right = (model(x).argmax(1) == y).nonzero().flatten()
        stands = torch.ones(len(right), dtype=torch.bool, device=x.device)
        x, y, draws = x[right], y[right], Draws(0, places[right])

        def watch(
            rows: Tensor,
            x_adv: Tensor,
            logits: Tensor,
            loss: Tensor | None = None,
            grad: Tensor | None = None,
        ) -> Tensor:
            stands[rows[logits.argmax(1) != y[rows]]] = False
            return stands[rows]

        if len(right):
            attack(model=model, x=x, y=y, ball=ball, draws=draws, watch=watch)
        return int(stands.sum())

    return measure


def rank(select: str, seen: Mapping[str, float]) -> tuple[float, float]:
    """What grows as an epoch gets better on validation; the second decides between equals."""
    if select == "robust":
        return seen["robust"], seen["accuracy"]
    return (seen["accuracy"], -seen["loss"]) if select == "accuracy" else (-seen["loss"], seen["accuracy"])


def best_epoch_metrics(select: str, lines: Sequence[Mapping[str, Any]]) -> Mapping[str, float] | None:
    """What the chosen epoch showed on validation, of the lines of metrics.jsonl; None where no
    epoch was evaluated."""
    seen: list[Mapping[str, float]] = [line["validation"] for line in lines if "validation" in line]
    if select == "last" or not seen:
        return seen[-1] if seen else None
    return max(seen, key=lambda each: rank(select, each))
