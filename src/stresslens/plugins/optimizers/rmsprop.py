from __future__ import annotations

import torch

from stresslens.core.types import Decay, NonNegative, Parameters, Positive


def rmsprop(
    parameters: Parameters,
    lr: float,
    *,
    alpha: Decay = 0.99,
    eps: Positive = 1e-8,
    momentum: NonNegative = 0.0,
    weight_decay: NonNegative = 0.0,
) -> torch.optim.Optimizer:
    """RMSprop (Hinton 2012), as torch.optim.RMSprop defines it."""
    return torch.optim.RMSprop(
        parameters, lr, alpha=alpha, eps=eps, momentum=momentum, weight_decay=weight_decay, foreach=True
    )
