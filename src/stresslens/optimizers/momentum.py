from __future__ import annotations

import torch
from torch import nn


def momentum(
    parameters: list[nn.Parameter], lr: float, *, momentum: float = 0.9, weight_decay: float = 0.0
) -> torch.optim.Optimizer:
    """SGD with heavy-ball momentum, as torch.optim.SGD defines it (no dampening)."""
    return torch.optim.SGD(parameters, lr, momentum=momentum, weight_decay=weight_decay, fused=True)
