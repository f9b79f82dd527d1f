from __future__ import annotations

import torch
from torch import Tensor

from stresslens.core.draws import Draws
from stresslens.core.types import Natural


def cutout(x: Tensor, y: Tensor, draws: Draws, *, size: Natural = 8) -> tuple[Tensor, Tensor]:
    """Blackens a square of `size` pixels around a random place of each image (DeVries & Taylor 2017); it may reach outside."""
    inside = torch.ones(len(x), 1, 1, 1, dtype=torch.bool, device=x.device)
    for axis, length in ((2, x.shape[2]), (3, x.shape[3])):
        start = draws.integers(length)[:, None] - size // 2  # (N, 1)
        place = torch.arange(length, device=x.device)
        covered = (place >= start) & (place < start + size)  # (N, length)
        inside = inside & (covered[:, None, :, None] if axis == 2 else covered[:, None, None, :])
    return x.masked_fill(inside, 0.0), y
