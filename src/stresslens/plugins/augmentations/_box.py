from __future__ import annotations

import torch
from torch import Tensor

from stresslens.core.draws import Draws


def box(x: Tensor, draws: Draws, rows: int | Tensor, columns: int | Tensor) -> Tensor:
    """(N, 1, H, W) which pixels lie in a box of so many rows and columns around a random place of
    each image; it may reach outside.

    A size is one for all images, or (N, 1) one for each.
    """
    covered = []
    for length, size in zip(x.shape[2:], (rows, columns)):
        start = draws.integers(length)[:, None] - size // 2  # (N, 1)
        place = torch.arange(length, device=x.device)
        covered.append((place >= start) & (place < start + size))  # (N, length)
    return covered[0][:, None, :, None] & covered[1][:, None, None, :]
