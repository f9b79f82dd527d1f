"""Random points of the box, from single pixels to one value for the whole image."""

from __future__ import annotations

from torch import Tensor

from stresslens.core.draws import Draws

CELLS = (1, 1, 2, 4, None)
"""The sides of the squares of one value that random points consist of, in turn; None is the whole
image."""


def random_point(x: Tensor, draws: Draws, index: int) -> Tensor:
    """A corner of the box or a uniform point of it, in squares of one value."""
    channels, height, width = x.shape[1:]
    cell = CELLS[index % len(CELLS)] or max(height, width)
    shape = channels, -(-height // cell), -(-width // cell)
    value = (draws.uniform(*shape) if index % 2 else draws.integers(2, *shape)).to(x.device, x.dtype)
    return value.repeat_interleave(cell, 2).repeat_interleave(cell, 3)[:, :, :height, :width]
