from __future__ import annotations

import torch

from stresslens.core.types import NonNegative, Parameters
from stresslens.plugins.optimizers._fused import fused


def momentum(
    parameters: Parameters, lr: float, *, momentum: NonNegative = 0.9, weight_decay: NonNegative = 0.0
) -> torch.optim.Optimizer:
    """SGD with heavy-ball momentum, as torch.optim.SGD defines it (no dampening)."""
    return torch.optim.SGD(
        parameters, lr, momentum=momentum, weight_decay=weight_decay, fused=fused(parameters)
    )
