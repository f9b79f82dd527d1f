"""Which images of a batch an augmentation changes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from stresslens.core.draws import Draws


def chosen(draws: Draws, chance: float) -> Tensor:
    """(N,) True for the images that are changed, each with probability `chance`.

    With a chance of 1 nothing is drawn, so an option `chance` does not change what an augmentation
    drew before it had one.
    """
    if chance == 1:
        return torch.ones(len(draws.index), dtype=torch.bool, device=draws.index.device)
    return draws.uniform() < chance


def changed(x: Tensor, mask: Tensor, change: Callable[..., Tensor], *each: Tensor) -> Tensor:
    """A copy of images x (N, C, H, W) in which those of the mask (N,) are `change(images, *values)`;
    `each` (N, …) are values of each image."""

    rows = mask.nonzero()[:, 0]
    if len(rows) == len(x):
        return change(x, *each).contiguous()
    return x.index_copy(0, rows, change(x[rows], *(value[rows] for value in each)))
