from __future__ import annotations

import torch

from stresslens.core.types import Positive, Scheduler, Share


def one_cycle(
    optimizer: torch.optim.Optimizer, steps: int, *, rise: Share = 0.3, start: Positive = 25.0
) -> Scheduler:
    """One-cycle schedule (Smith & Topin 2019).

    The learning rate rises from lr/`start` to lr in the first `rise` of all steps, and then falls
    nearly to zero.
    """
    peaks = [group["lr"] for group in optimizer.param_groups]
    if rise * (steps + 1) == 1:  # torch divides by the number of rising steps minus one
        rise *= 1 + 1e-9
    return torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=peaks, total_steps=steps + 1, pct_start=rise, div_factor=start, cycle_momentum=False
    )
