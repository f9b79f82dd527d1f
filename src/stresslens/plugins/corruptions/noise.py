from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from stresslens.core.draws import Draws
from stresslens.plugins.corruptions._strength import Severity, strength


def noise(
    x: Tensor, draws: Draws, severity: Severity, *, kind: Literal["gaussian", "impulse"] = "gaussian"
) -> Tensor:
    """Gaussian or impulse noise for each pixel and channel (Hendrycks & Dietterich 2019).

    x is (N, C, H, W) in [0, 1]. `impulse` sets some values to 0 or 1. Every severity uses the same
    random numbers, scaled.
    """
    if kind == "gaussian":
        deviation = strength(x, severity, (0.04, 0.06, 0.08, 0.09, 0.10), (0.08, 0.12, 0.18, 0.26, 0.38))
        return (x + deviation * draws.normal(*x.shape[1:]).to(x.dtype)).clamp(0, 1)
    share = strength(x, severity, (0.01, 0.02, 0.03, 0.05, 0.07), (0.03, 0.06, 0.09, 0.17, 0.27))
    where, which = draws.uniform(*x.shape[1:]), draws.integers(2, *x.shape[1:])
    return torch.where(where < share, which.to(x.dtype), x)
