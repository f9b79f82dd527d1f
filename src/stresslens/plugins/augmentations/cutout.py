from __future__ import annotations

from torch import Tensor

from stresslens.core.draws import Draws
from stresslens.core.types import Natural
from stresslens.plugins.augmentations._box import box


def cutout(x: Tensor, y: Tensor, draws: Draws, *, size: Natural = 8) -> tuple[Tensor, Tensor]:
    """Cutout: blackens a square of side `size` in each image (DeVries & Taylor 2017).

    The square is around a random position and may reach outside.
    """
    return x.masked_fill(box(x, draws, size, size), 0.0), y
