from __future__ import annotations

import torch
from torch.optim import lr_scheduler

from stresslens.core.types import Scheduler, Share


def exponential(optimizer: torch.optim.Optimizer, steps_per_epoch: int, *, factor: Share = 0.95) -> Scheduler:
    """Exponential decay: every epoch multiplies the learning rate by `factor`.

    It falls a little after each update, so that after whole epochs it is that of
    torch.optim.lr_scheduler.ExponentialLR, which is stepped once an epoch.
    """
    return lr_scheduler.LambdaLR(optimizer, lambda step: float(factor ** (step / steps_per_epoch)))
