from __future__ import annotations

import torch

from stresslens.core.types import Count, Positive, Scheduler


def step(
    optimizer: torch.optim.Optimizer, steps_per_epoch: int, *, every: Count = 30, factor: Positive = 0.1
) -> Scheduler:
    """Multiplies the learning rate by `factor` after each `every` epochs."""
    return torch.optim.lr_scheduler.StepLR(optimizer, every * steps_per_epoch, gamma=factor)
