from __future__ import annotations

import torch

from stresslens.core.types import Decay, NonNegative, Parameters, Positive
from stresslens.plugins.optimizers._fused import fused


def adamw(
    parameters: Parameters,
    lr: float,
    *,
    beta1: Decay = 0.9,
    beta2: Decay = 0.999,
    eps: Positive = 1e-8,
    weight_decay: NonNegative = 0.01,
) -> torch.optim.Optimizer:
    """AdamW (Loshchilov & Hutter 2019): Adam with decoupled weight decay."""
    return torch.optim.AdamW(
        parameters, lr, betas=(beta1, beta2), eps=eps, weight_decay=weight_decay, fused=fused(parameters)
    )
