"""Which images of a batch an augmentation changes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from stresslens.core.draws import Draws

CACHED = 2**20
"""About so many pixel values are changed at once, so that copies on the way stay in the cache: at 224×224
a Gaussian blur takes a third of the time."""


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
    `each` (N, …) are values of each image. Images on a CPU are changed some at a time (`CACHED`)."""
    rows = mask.nonzero()[:, 0]
    at_once = max(1, CACHED // max(1, x[:1].numel())) if x.device.type == "cpu" else len(x)
    if len(rows) == len(x) <= at_once:
        return change(x, *each).contiguous()
    if len(rows) <= at_once:
        return x.index_copy(0, rows, change(x[rows], *(value[rows] for value in each)))
    result = x.clone()
    for some in rows.split(at_once):
        result[some] = change(x[some], *(value[some] for value in each))
    return result
