from __future__ import annotations

import torch
from torch import Tensor

from stresslens.plugins.corruptions._strength import Severity, strength


def brightness(x: Tensor, severity: Severity) -> Tensor:
    """Higher brightness: raises the value in HSV (Hendrycks & Dietterich 2019). x (N, C, H, W) in
    [0, 1].

    Hue and saturation do not change. The value is the brightest channel. Black becomes grey.
    """
    more = strength(x, severity, (0.05, 0.1, 0.15, 0.2, 0.3), (0.1, 0.2, 0.3, 0.4, 0.5))
    value = x.amax(1, keepdim=True)
    raised = (value + more).clamp_max(1)
    return torch.where(value > 0, x * (raised / value.clamp_min(torch.finfo(x.dtype).tiny)), raised).clamp(
        0, 1
    )
