from __future__ import annotations

from torch import Tensor

from stresslens.plugins.corruptions._strength import Severity, strength


def contrast(x: Tensor, severity: Severity) -> Tensor:
    """Lower contrast (Hendrycks & Dietterich 2019). x (N, C, H, W) in [0, 1].

    Each channel moves towards its mean over the image.
    """
    kept = strength(x, severity, (0.75, 0.5, 0.4, 0.3, 0.15), (0.4, 0.3, 0.2, 0.1, 0.05))
    mean = x.mean((2, 3), keepdim=True)
    return (mean + kept * (x - mean)).clamp(0, 1)
