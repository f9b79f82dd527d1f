from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor

from stresslens.core.draws import Draws
from stresslens.core.types import Natural
from stresslens.plugins.augmentations import _operations

GREY: tuple[_operations.Operation, ...] = (
    *(
        _operations.identity,
        _operations.shear_x,
        _operations.shear_y,
        _operations.translate_x,
        _operations.translate_y,
        _operations.rotate,
        _operations.brightness,
    ),
    *(
        _operations.contrast,
        _operations.sharpness,
        _operations.posterize,
        _operations.solarize,
        _operations.autocontrast,
        _operations.equalize,
    ),
)
COLOUR = (*GREY, _operations.colour)


def rand_augment(
    x: Tensor,
    y: Tensor,
    draws: Draws,
    *,
    operations: Natural = 2,
    magnitude: Annotated[float, Field(ge=0, le=30)] = 9.0,
) -> tuple[Tensor, Tensor]:
    """RandAugment: random operations, one after the other, all of one magnitude (Cubuk et al.
    2020).

    `operations` are drawn for each image from fourteen: identity; shear and translation along
    either side, rotation; brightness, contrast, colour, sharpness; posterize, solarize,
    autocontrast, equalize. Magnitude 30 is a shear of 0.3, a translation by 150/331 of the side,
    30°, a factor of 0.1 or 1.9, four bits, or inversion of every value; the direction is drawn. The
    operation colour is only for images of three channels. Moved images are interpolated bilinearly;
    in the paper they are not interpolated.
    """
    available = COLOUR if x.shape[1] == 3 else GREY
    chosen = draws.integers(len(available), operations)  # (N, operations)
    signs = 2 * draws.integers(2, operations) - 1
    changed = x.clone()
    for which, sign in zip(chosen.unbind(1), signs.to(x.dtype).unbind(1)):
        for k, operation in enumerate(available):
            rows = (which == k).nonzero()[:, 0]
            changed[rows] = operation(changed[rows], sign[rows, None, None, None], magnitude / 30).clamp(0, 1)
    return changed, y
