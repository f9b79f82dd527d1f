from __future__ import annotations

import torch
from torch import Tensor

from stresslens.plugins.corruptions._strength import Severity, strength


def pixelation(x: Tensor, severity: Severity) -> Tensor:
    """Fewer pixels, each the mean of its area, shown at the old size (Hendrycks & Dietterich 2019).
    x (N, C, H, W) in [0, 1].

    Of small images fewer pixels are left than in CIFAR-10-C, whose mildest severities harm less the
    higher they are.
    """
    share = strength(x, severity, (0.95, 0.82, 0.7, 0.6, 0.5), (0.6, 0.5, 0.4, 0.3, 0.25))
    rows, columns = (_coarsened(side, max(1, round(side * share))).to(x) for side in x.shape[2:])
    return (rows @ x @ columns.t()).clamp(0, 1)


def _coarsened(given: int, fewer: int) -> Tensor:
    """(given, given) a line of pixels after passing through fewer: the share that each covers of
    the one its centre falls in."""
    edges = torch.arange(fewer + 1, dtype=torch.float64) / fewer
    pixels = torch.arange(given + 1, dtype=torch.float64) / given
    upper, lower = (
        torch.minimum(edges[1:, None], pixels[None, 1:]),
        torch.maximum(edges[:-1, None], pixels[None, :-1]),
    )
    shares = (upper - lower).clamp_min(0) * fewer  # (fewer, given)
    return shares[((torch.arange(given) + 0.5) * fewer / given).long()]
