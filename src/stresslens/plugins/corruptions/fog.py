from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from stresslens.core.draws import Draws
from stresslens.plugins.corruptions._strength import Severity, strength


def fog(x: Tensor, draws: Draws, severity: Severity) -> Tensor:
    """Fog of varying thickness; the brightness of the brightest pixel is kept. x (N, C, H, W) in
    [0, 1].

    Hendrycks & Dietterich (2019) make the fog by midpoint displacement. Here it is a sum of random
    grids for any image size, each twice as fine as the one before and weaker.
    """
    thickness = strength(x, severity, (0.2, 0.5, 0.75, 1.0, 1.5), (1.5, 2.0, 2.5, 2.5, 3.0))
    decay = strength(x, severity, (3.0, 3.0, 2.5, 2.0, 1.75), (2.0, 2.0, 1.7, 1.5, 1.4))
    size = x.shape[2:]
    veil = torch.zeros(len(x), 1, *size, dtype=x.dtype, device=x.device)
    cells, weight = 1, 1.0
    while cells < max(size):
        cells, weight = 2 * cells, weight / decay
        grid = draws.uniform(1, cells + 1, cells + 1).to(x.dtype)
        veil += weight * F.interpolate(grid, size, mode="bilinear", align_corners=True)
    low, high = (extreme(veil, (2, 3), keepdim=True) for extreme in (torch.amin, torch.amax))
    veil = (veil - low) / (high - low).clamp_min(1e-12)
    brightest = x.amax((1, 2, 3), keepdim=True)
    return ((x + thickness * veil) * brightest / (brightest + thickness)).clamp(0, 1)
