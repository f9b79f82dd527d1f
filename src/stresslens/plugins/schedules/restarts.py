from __future__ import annotations

import math

import torch
from torch.optim import lr_scheduler

from stresslens.core.types import Count, NonNegative, Scheduler
from stresslens.plugins.schedules._floor import above, lowest_share


def restarts(
    optimizer: torch.optim.Optimizer,
    steps_per_epoch: int,
    *,
    period: Count = 10,
    growth: Count = 2,
    floor: NonNegative = 0.0,
) -> Scheduler:
    """Cosine annealing with warm restarts, SGDR (Loshchilov & Hutter 2017, eq. 5).

    The learning rate falls to `floor` in the first `period` epochs, and is then set back; every period
    is `growth` times as long as the one before. Epochs that end a period give the best weights: 10, 30,
    70, … with the defaults. `floor` belongs to `train.lr`, as in `cosine`.
    """
    first = period * steps_per_epoch

    def share(step: int) -> float:
        length = first
        while step >= length:
            step, length = step - length, length * growth
        return (1 + math.cos(math.pi * step / length)) / 2

    return lr_scheduler.LambdaLR(optimizer, above(lowest_share(optimizer, floor), share))
