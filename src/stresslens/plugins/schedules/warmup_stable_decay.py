from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch.optim import lr_scheduler

from stresslens.core.errors import ConfigError
from stresslens.core.types import Decay, NonNegative, Scheduler, Share
from stresslens.plugins.schedules._floor import above, lowest_share

FALLS: dict[str, Callable[[float], float]] = {
    "linear": lambda done: 1 - done,
    "cosine": lambda done: (1 + math.cos(math.pi * done)) / 2,
    "sqrt": lambda done: 1 - math.sqrt(done),
}
"""The course from 1 to 0 by the share of the decay that is done."""


def warmup_stable_decay(
    optimizer: torch.optim.Optimizer,
    steps: int,
    *,
    warmup: Decay = 0.05,
    decay: Share = 0.2,
    shape: Literal["linear", "cosine", "sqrt"] = "sqrt",
    floor: NonNegative = 0.0,
) -> Scheduler:
    """Warm-up, a constant learning rate, then decay (Hu et al. 2024, MiniCPM, section 4.2: WSD).

    The rate rises in a line over the share `warmup` of all steps, stays, and falls to `floor` over the
    last share `decay`, in a line, as half a cosine, or as 1 - √(share done), which Hägele et al. (2024,
    section 3) found best. `floor` belongs to `train.lr`, as in `cosine`. Raises ConfigError where
    warm-up and decay together are longer than the training.
    """
    if warmup + decay > 1:
        raise ConfigError(
            f"warmup_stable_decay: warmup {warmup:g} and decay {decay:g} are {warmup + decay:g} of all "
            "steps; together they may be at most 1"
        )
    rising, falling = round(warmup * steps), max(1, round(decay * steps))
    fall = above(lowest_share(optimizer, floor), lambda step: FALLS[shape](step / falling))

    def share(step: int) -> float:
        rise = (step + 1) / (rising + 1) if step < rising else 1.0
        return min(rise, fall(min(falling, max(0, step - (steps - falling)))))

    return lr_scheduler.LambdaLR(optimizer, share)
