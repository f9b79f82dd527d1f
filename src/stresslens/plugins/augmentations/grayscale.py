from __future__ import annotations

from torch import Tensor

from stresslens.core.draws import Draws
from stresslens.core.types import Chance
from stresslens.plugins.augmentations._chance import changed, chosen
from stresslens.plugins.augmentations._colour import grey


def grayscale(x: Tensor, y: Tensor, draws: Draws, *, chance: Chance = 0.1) -> tuple[Tensor, Tensor]:
    """Makes an image grey with probability `chance`: every channel becomes the luminance.

    The luminance is 0.2989 red + 0.587 green + 0.114 blue. Images of another number of channels
    than three get the mean of their channels.
    """
    return changed(x, chosen(draws, chance), lambda images: grey(images).expand_as(images)), y
