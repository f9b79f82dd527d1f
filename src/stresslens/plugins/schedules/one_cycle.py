from __future__ import annotations

import torch

from stresslens.core.types import Positive, Scheduler, Share


def one_cycle(
    optimizer: torch.optim.Optimizer, steps: int, *, rise: Share = 0.3, start: Positive = 25.0
) -> Scheduler:
    """One cycle (Smith & Topin 2019): from lr/`start` up to lr in the first `rise` of all steps,
    then down to nearly nothing."""
    peaks = [group["lr"] for group in optimizer.param_groups]
    if rise * (steps + 1) == 1:  # torch divides by the length of the rise less one
        rise *= 1 + 1e-9
    return torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=peaks, total_steps=steps + 1, pct_start=rise, div_factor=start, cycle_momentum=False
    )
