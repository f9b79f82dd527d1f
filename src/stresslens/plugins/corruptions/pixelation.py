from __future__ import annotations

import torch
from torch import Tensor

from stresslens.plugins.corruptions._strength import Severity, strength


def pixelation(x: Tensor, severity: Severity) -> Tensor:
    """Pixelation: fewer, larger pixels at the same image size (Hendrycks & Dietterich 2019).

    x is (N, C, H, W) in [0, 1]. Each large pixel is the mean of its area. For small images fewer
    pixels are kept than in CIFAR-10-C, where the higher of the mildest severities harm less.
    """
    share = strength(x, severity, (0.95, 0.82, 0.7, 0.6, 0.5), (0.6, 0.5, 0.4, 0.3, 0.25))
    rows, columns = (_coarsened(side, max(1, round(side * share))).to(x) for side in x.shape[2:])
    return (rows @ x @ columns.t()).clamp(0, 1)


def _coarsened(given: int, fewer: int) -> Tensor:
    """(given, given) matrix that pixelates a line of `given` pixels to `fewer` large pixels.

    Each pixel becomes the mean of the large pixel that its centre is in.
    """
    edges = torch.arange(fewer + 1, dtype=torch.float64) / fewer
    pixels = torch.arange(given + 1, dtype=torch.float64) / given
    upper = torch.minimum(edges[1:, None], pixels[None, 1:])
    lower = torch.maximum(edges[:-1, None], pixels[None, :-1])
    shares = (upper - lower).clamp_min(0) * fewer  # (fewer, given)
    return shares[((torch.arange(given) + 0.5) * fewer / given).long()]
