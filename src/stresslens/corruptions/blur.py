from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from stresslens.corruptions._strength import Severity, strength


def blur(x: Tensor, severity: Severity) -> Tensor:
    """Gaussian blur, the border repeated beyond the edge (Hendrycks & Dietterich 2019). x (N, C, H, W) in [0, 1]."""
    deviation = strength(x, severity, (0.4, 0.6, 0.7, 0.8, 1.0), (1.0, 2.0, 3.0, 4.0, 6.0))
    reach = math.ceil(4 * deviation)
    offset = torch.arange(-reach, reach + 1, device=x.device, dtype=x.dtype)
    kernel = torch.exp(-(offset**2) / (2 * deviation**2))
    kernel = (kernel / kernel.sum())[None, None]
    n, c, h, w = x.shape
    rows = F.conv1d(F.pad(x.reshape(1, -1, w), (reach, reach), mode="replicate").reshape(-1, 1, w + 2 * reach), kernel)
    columns = rows.reshape(n * c, h, w).transpose(1, 2)
    found = F.conv1d(F.pad(columns, (reach, reach), mode="replicate").reshape(-1, 1, h + 2 * reach), kernel)
    return found.reshape(n, c, w, h).transpose(2, 3).contiguous().clamp(0, 1)
