from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from stresslens.core.draws import Draws
from stresslens.core.types import Chance, Natural
from stresslens.plugins.augmentations._chance import chosen
from stresslens.plugins.augmentations._operations import applied, for_channels, known_operations

KNOWN = known_operations()
NAMES = [name for name in KNOWN if name != "invert"]


def rand_augment(
    x: Tensor,
    y: Tensor,
    draws: Draws,
    *,
    operations: Natural = 2,
    magnitude: Annotated[float, Field(ge=0, le=30)] = 9.0,
    chance: Chance = 1.0,
) -> tuple[Tensor, Tensor]:
    """RandAugment: random operations, one after the other, all of one magnitude (Cubuk et al.
    2020).

    `operations` are drawn for each image from fourteen: identity; shear and translation along
    either side, rotation; brightness, contrast, colour, sharpness; posterize, solarize,
    autocontrast, equalize. Magnitude 30 is a shear of 0.3, a translation by 150/331 of the side,
    30°, a factor of 0.1 or 1.9, four bits, or inversion of every value; the direction is drawn. The
    operation colour is only for images of three channels. Moved images are interpolated bilinearly;
    in the paper they are not interpolated. An image is changed with probability `chance`.
    """
    mask = chosen(draws, chance)
    available = for_channels(NAMES, x.shape[1])
    which = draws.integers(len(available), operations).where(mask[:, None], -1)  # (N, operations)
    signs = 2 * draws.integers(2, operations) - 1
    strength = torch.full(which.shape, magnitude / 30, dtype=torch.float64, device=x.device)
    return applied(x, which, strength, signs, available, KNOWN), y
