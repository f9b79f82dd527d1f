from __future__ import annotations

import torch

from stresslens.core.types import NonNegative, Scheduler


def cosine(optimizer: torch.optim.Optimizer, steps: int, *, floor: NonNegative = 0.0) -> Scheduler:
    """Half a cosine from the learning rate down to `floor` at the last step (Loshchilov & Hutter
    2017, without restarts)."""
    return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps, eta_min=floor)
