from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field

from stresslens.core.types import Scheduler


def one_cycle(
    optimizer: torch.optim.Optimizer, steps: int, *, rise: Annotated[float, Field(gt=0, lt=1)] = 0.3, start: float = 25.0
) -> Scheduler:
    """One cycle (Smith & Topin 2019): from lr/`start` up to lr in the first `rise` of all steps, then down to nearly nothing."""
    peak = optimizer.param_groups[0]["lr"]
    return torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=peak, total_steps=steps + 1, pct_start=rise, div_factor=start, cycle_momentum=False
    )
