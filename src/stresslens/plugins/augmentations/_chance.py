"""Which images of a batch an augmentation changes."""

from __future__ import annotations

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


def rows(mask: Tensor) -> Tensor:
    """The positions of the images that `mask` (N,) selects."""
    return mask.nonzero()[:, 0]


def replaced(x: Tensor, where: Tensor, new: Tensor) -> Tensor:
    """A copy of x with the images `new` at the positions `where`."""
    return new if len(where) == len(x) else x.index_copy(0, where, new)
