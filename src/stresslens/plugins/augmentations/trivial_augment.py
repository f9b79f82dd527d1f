from __future__ import annotations

from torch import Tensor

from stresslens.core.draws import Draws
from stresslens.core.types import Chance
from stresslens.plugins.augmentations._chance import chosen
from stresslens.plugins.augmentations._operations import applied, for_channels, known_operations

LEVELS = 31
WIDE = known_operations(
    shear=0.99, shift=lambda strength, length: 32 * strength, rotation=135, factor=0.99, bits=(8, 2)
)
NAMES = [name for name in WIDE if name != "invert"]


def trivial_augment(x: Tensor, y: Tensor, draws: Draws, *, chance: Chance = 1.0) -> tuple[Tensor, Tensor]:
    """TrivialAugment: one random operation of a random strength (Müller & Hutter 2021, "wide").

    The operations are those of `rand_augment`. The strength is one of 31 from nothing to a shear of
    0.99, a translation by 32 pixels, 135°, a factor of 0.01 or 1.99, two bits, or inversion of every
    value; the direction is drawn. Moved images are interpolated bilinearly. An image is changed
    with probability `chance`.
    """
    mask = chosen(draws, chance)
    available = for_channels(NAMES, x.shape[1])
    which = draws.integers(len(available), 1).where(mask[:, None], -1)
    strength = draws.integers(LEVELS, 1).double() / (LEVELS - 1)
    signs = 2 * draws.integers(2, 1) - 1
    return applied(x, which, strength, signs, available, WIDE), y
