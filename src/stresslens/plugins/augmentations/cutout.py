from __future__ import annotations

from torch import Tensor

from stresslens.core.draws import Draws
from stresslens.core.types import Chance, Natural
from stresslens.plugins.augmentations._box import box, filled
from stresslens.plugins.augmentations._chance import chosen


def cutout(
    x: Tensor, y: Tensor, draws: Draws, *, size: Natural = 8, chance: Chance = 1.0
) -> tuple[Tensor, Tensor]:
    """Cutout: blackens a square of side `size` in each image (DeVries & Taylor 2017).

    The square is around a random position and may reach outside. An image is changed with
    probability `chance`.
    """
    mask = chosen(draws, chance)[:, None, None, None]
    return filled(x, box(x, draws, size, size) & mask, 0.0), y
