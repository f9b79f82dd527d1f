"""Random boxes in images, for Cutout, CutMix and erasing."""

from __future__ import annotations

import torch
from torch import Tensor

from stresslens.core.draws import Draws


def box(x: Tensor, draws: Draws, rows: int | Tensor, columns: int | Tensor) -> Tensor:
    """(N, 1, H, W) True for the pixels in a box around a random position of each image.

    `rows` and `columns` are the size of the box, one for all images or (N, 1) for each. The box may
    reach outside the image.
    """
    top, left = (
        draws.integers(length)[:, None] - size // 2 for length, size in zip(x.shape[2:], (rows, columns))
    )
    return between(x, top, rows, left, columns)


def between(x: Tensor, top: Tensor, rows: int | Tensor, left: Tensor, columns: int | Tensor) -> Tensor:
    """(N, 1, H, W) True for the pixels in `rows` rows from `top` on, and `columns` columns from `left`
    on; all are (N, 1)."""
    covered = []
    for length, start, size in zip(x.shape[2:], (top, left), (rows, columns)):
        position = torch.arange(length, device=x.device)
        covered.append((position >= start) & (position < start + size))  # (N, length)
    return covered[0][:, None, :, None] & covered[1][:, None, None, :]


def filled(x: Tensor, boxes: Tensor, value: float) -> Tensor:
    """Images x (N, C, H, W) with `value` in their boxes (N, 1, H, W)."""
    inside = boxes.to(x.dtype)
    kept = x * (1 - inside)  # on a CPU in less than half the time of masked_fill
    return kept.add_(inside, alpha=value) if value else kept
