from __future__ import annotations

import torch

from stresslens.core.types import NonNegative, Parameters, Positive
from stresslens.plugins.optimizers._fused import fused


def nesterov(
    parameters: Parameters, lr: float, *, momentum: Positive = 0.9, weight_decay: NonNegative = 0.0
) -> torch.optim.Optimizer:
    """SGD with Nesterov momentum (Sutskever et al. 2013), as torch.optim.SGD defines it."""
    return torch.optim.SGD(
        parameters, lr, momentum=momentum, weight_decay=weight_decay, nesterov=True, fused=fused(parameters)
    )
