"""Windows of images, and the size at which an augmentation shows images."""

from __future__ import annotations

import torch
from torch import Tensor


def windows(x: Tensor, top: Tensor, left: Tensor, height: int, width: int) -> Tensor:
    """(N, C, height, width) the part of each image (N, C, H, W) from `top` and `left` on, both (N,)."""
    if x.device.type == "cpu":  # a copy for each image takes less than indices for each pixel
        part = torch.empty(*x.shape[:2], height, width, dtype=x.dtype)
        for image, new, row, column in zip(x, part, top.tolist(), left.tolist()):
            new.copy_(image[:, row : row + height, column : column + width])
        return part
    rows = top[:, None] + torch.arange(height, device=x.device)  # (N, height)
    columns = left[:, None] + torch.arange(width, device=x.device)  # (N, width)
    images = torch.arange(len(x), device=x.device)[:, None, None]
    found = x.permute(0, 2, 3, 1)[images, rows[:, :, None], columns[:, None, :]]  # (N, height, width, C)
    return found.permute(0, 3, 1, 2)


def shown_size(*, size: int | tuple[int, int] | None) -> tuple[int, int] | None:
    """The size (H, W) of the images that an augmentation with the option `size` returns; None: that of
    the images."""
    return (size, size) if isinstance(size, int) else size
