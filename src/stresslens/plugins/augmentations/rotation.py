from __future__ import annotations

from functools import partial
from typing import Annotated

from pydantic import Field
from torch import Tensor

from stresslens.core.draws import Draws
from stresslens.core.types import Chance
from stresslens.plugins.augmentations._chance import changed, chosen
from stresslens.plugins.augmentations._geometry import Interpolation, rotate


def rotation(
    x: Tensor,
    y: Tensor,
    draws: Draws,
    *,
    degrees: Annotated[float, Field(ge=0, le=180)] = 15.0,
    interpolation: Interpolation = "bilinear",
    chance: Chance = 1.0,
) -> tuple[Tensor, Tensor]:
    """Rotates each image about its centre by a random angle up to `degrees`, either way.

    The size stays, and the corners become black. An image is rotated with probability `chance`.
    """
    mask = chosen(draws, chance)
    angle = draws.uniform(low=-degrees, high=degrees)[:, None, None, None]
    return changed(x, mask, partial(rotate, interpolation=interpolation), angle), y
