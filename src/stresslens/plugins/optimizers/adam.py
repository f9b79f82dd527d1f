from __future__ import annotations

import torch

from stresslens.core.types import Decay, NonNegative, Parameters, Positive
from stresslens.plugins.optimizers._fused import fused


def adam(
    parameters: Parameters,
    lr: float,
    *,
    beta1: Decay = 0.9,
    beta2: Decay = 0.999,
    eps: Positive = 1e-8,
    weight_decay: NonNegative = 0.0,
) -> torch.optim.Optimizer:
    """Adam (Kingma & Ba 2015); weight decay is added to the gradient (`adamw` decouples it)."""
    return torch.optim.Adam(
        parameters, lr, betas=(beta1, beta2), eps=eps, weight_decay=weight_decay, fused=fused(parameters)
    )
