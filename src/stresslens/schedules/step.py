from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field

from stresslens.core.types import Scheduler


def step(
    optimizer: torch.optim.Optimizer, steps_per_epoch: int, *, every: Annotated[int, Field(ge=1)] = 30, factor: float = 0.1
) -> Scheduler:
    """Multiplies the learning rate by `factor` after each `every` epochs."""
    return torch.optim.lr_scheduler.StepLR(optimizer, every * steps_per_epoch, gamma=factor)
