from __future__ import annotations

from torch import Tensor

from stresslens.core.draws import Draws
from stresslens.core.types import Chance


def flip(x: Tensor, y: Tensor, draws: Draws, *, chance: Chance = 0.5) -> tuple[Tensor, Tensor]:
    """Flips each image horizontally with probability `chance`."""
    mirrored = draws.uniform()[:, None, None, None] < chance
    return x.where(~mirrored, x.flip(-1)), y
