from __future__ import annotations

import math

import torch
from torch.optim import lr_scheduler

from stresslens.core.types import NonNegative, Scheduler
from stresslens.plugins.schedules._floor import above, lowest_share


def cosine(optimizer: torch.optim.Optimizer, steps: int, *, floor: NonNegative = 0.0) -> Scheduler:
    """Cosine annealing from the learning rate to `floor` at the last step.

    See Loshchilov & Hutter (2017); there are no restarts. Where layers have learning rates of their
    own, `floor` belongs to `train.lr`, and the floors of the layers have the ratios of their rates.
    """
    rates = {float(group["lr"]) for group in optimizer.param_groups}
    if floor == 0 or len(rates) == 1:
        return lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps, eta_min=floor)
    lowest = lowest_share(optimizer, floor)
    return lr_scheduler.LambdaLR(
        optimizer, above(lowest, lambda step: (1 + math.cos(math.pi * step / steps)) / 2)
    )
