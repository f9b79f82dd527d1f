"""Corrections of the training arithmetic since version 0.1.0, which give some trainings other
weights. The fingerprint of such a training names them, so that an earlier result is not taken for it.
"""

from __future__ import annotations

from typing import Any

from stresslens.config import registry
from stresslens.config.schema import FineTune, Train


def corrections(train: Train, images: int) -> list[str]:
    """What is computed in another way than in 0.1.0 for a training on so many images, in words."""
    schedule = dict(_schedules(train.schedule))
    tune = train.fine_tune or FineTune()
    has_own_rates = tune.layer_decay != 1 or tune.head_lr_scale != 1
    known = {
        "accumulated batches are weighted by their images": _accumulates_unequal_batches(train, images),
        "the floor of cosine keeps the ratios of layer-wise learning rates": has_own_rates
        and bool(schedule.get("cosine", {}).get("floor")),
        "one_cycle does not follow a warmup": "warmup" in schedule and "one_cycle" in schedule,
    }
    return [words for words, applies in known.items() if applies]


def _accumulates_unequal_batches(train: Train, images: int) -> bool:
    """Whether the smaller last batch of an epoch shares an update with a larger one."""
    size = images if train.batch_size == "full" else min(train.batch_size, images)
    first_short = images // size * train.replay
    steps = -(-images // size) * train.replay
    last_group = (first_short // train.accumulate) * train.accumulate
    return images % size > 0 and last_group < first_short < steps


def _schedules(value: Any) -> list[tuple[str, dict[str, Any]]]:
    """The names and options of a schedule and of those inside it."""
    name, options = registry.name_and_options("schedules", value)
    inner = options.get("then", "cosine") if name == "warmup" else None
    return [(name, dict(options)), *(_schedules(inner) if inner is not None else [])]
