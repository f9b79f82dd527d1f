from __future__ import annotations

from torch import Tensor

from stresslens.core.blur import blurred
from stresslens.plugins.corruptions._strength import Severity, strength


def blur(x: Tensor, severity: Severity) -> Tensor:
    """Gaussian blur (Hendrycks & Dietterich 2019). x (N, C, H, W) in [0, 1].

    The border pixels are repeated beyond the edge.
    """
    return blurred(x, strength(x, severity, (0.4, 0.6, 0.7, 0.8, 1.0), (1.0, 2.0, 3.0, 4.0, 6.0))).clamp(0, 1)
