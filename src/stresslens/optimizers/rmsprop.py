from __future__ import annotations

import torch
from torch import nn


def rmsprop(
    parameters: list[nn.Parameter],
    lr: float,
    *,
    alpha: float = 0.99,
    eps: float = 1e-8,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
) -> torch.optim.Optimizer:
    """RMSprop (Hinton 2012), as torch.optim.RMSprop defines it."""
    return torch.optim.RMSprop(parameters, lr, alpha=alpha, eps=eps, momentum=momentum, weight_decay=weight_decay, foreach=True)
