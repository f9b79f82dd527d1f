"""Gaussian blur."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def blurred(x: Tensor, deviation: float) -> Tensor:
    """Images x (N, C, H, W) blurred by a Gaussian whose standard deviation is in pixels.

    The border pixels are repeated beyond the edge.
    """
    reach = math.ceil(4 * deviation)
    offset = torch.arange(-reach, reach + 1, device=x.device, dtype=x.dtype)
    kernel = torch.exp(-(offset**2) / (2 * deviation**2))
    kernel = (kernel / kernel.sum())[None, None]
    n, c, h, w = x.shape
    rows = F.conv1d(
        F.pad(x.reshape(1, -1, w), (reach, reach), mode="replicate").reshape(-1, 1, w + 2 * reach), kernel
    )
    columns = rows.reshape(n * c, h, w).transpose(1, 2)
    both = F.conv1d(F.pad(columns, (reach, reach), mode="replicate").reshape(-1, 1, h + 2 * reach), kernel)
    return both.reshape(n, c, w, h).transpose(2, 3).contiguous()
