from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from stresslens.core.draws import Draws
from stresslens.core.types import Chance, NonNegative
from stresslens.plugins.augmentations import _colour
from stresslens.plugins.augmentations._chance import chosen
from stresslens.plugins.augmentations._operations import Operation, applied

CHANGES = {
    name: Operation(change, lambda amount, sign, size: amount.to(sign.dtype))
    for name, change in {
        "brightness": _colour.brightness,
        "contrast": _colour.contrast,
        "saturation": _colour.saturation,
        "hue": _colour.hue,
    }.items()
}
OF_ANY_CHANNELS = ("brightness", "contrast")


def color_jitter(
    x: Tensor,
    y: Tensor,
    draws: Draws,
    *,
    brightness: NonNegative = 0.4,
    contrast: NonNegative = 0.4,
    saturation: NonNegative = 0.4,
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.1,
    chance: Chance = 1.0,
) -> tuple[Tensor, Tensor]:
    """Random brightness, contrast, saturation and hue, in a random order (torchvision's ColorJitter).

    A factor of brightness, contrast or saturation is drawn from [1 - value, 1 + value], not below
    0. The hue is turned by up to `hue` of the colour circle, either way. Values are clamped to
    [0, 1] after each step. Saturation and hue are only for images of three channels. An image is
    changed with probability `chance`.
    """
    mask = chosen(draws, chance)
    amounts = [
        draws.uniform(low=max(0.0, 1 - width), high=1 + width) for width in (brightness, contrast, saturation)
    ]
    amounts.append(draws.uniform(low=-hue, high=hue))
    widths = zip(CHANGES, (brightness, contrast, saturation, hue))
    used = [width > 0 and (x.shape[1] == 3 or name in OF_ANY_CHANNELS) for name, width in widths]
    order = draws.uniform(4).argsort(1)  # (N, 4)
    amount = torch.stack(amounts, 1).gather(1, order)
    which = order.where(mask[:, None] & torch.tensor(used, device=x.device)[order], -1)
    return applied(x, which, amount, torch.ones_like(which), list(CHANGES), CHANGES), y
