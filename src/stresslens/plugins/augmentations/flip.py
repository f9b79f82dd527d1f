from __future__ import annotations

from torch import Tensor

from stresslens.core.draws import Draws
from stresslens.core.types import Chance
from stresslens.plugins.augmentations._chance import changed


def flip(x: Tensor, y: Tensor, draws: Draws, *, chance: Chance = 0.5) -> tuple[Tensor, Tensor]:
    """Flips each image horizontally with probability `chance`."""
    return changed(x, draws.uniform() < chance, lambda images: images.flip(-1)), y
