from __future__ import annotations

import torch

from stresslens.core.types import NonNegative, Scheduler


def cosine(optimizer: torch.optim.Optimizer, steps: int, *, floor: NonNegative = 0.0) -> Scheduler:
    """Cosine annealing from the learning rate to `floor` at the last step.

    See Loshchilov & Hutter (2017); there are no restarts.
    """
    return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps, eta_min=floor)
