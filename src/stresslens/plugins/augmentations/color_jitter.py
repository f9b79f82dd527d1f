from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor

from stresslens.core.draws import Draws
from stresslens.core.types import Chance, NonNegative
from stresslens.plugins.augmentations import _colour
from stresslens.plugins.augmentations._chance import chosen

CHANGES = (_colour.brightness, _colour.contrast, _colour.saturation, _colour.hue)


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
    order = draws.uniform(4).argsort(1).where(mask[:, None], -1)  # (N, 4)
    used = [k for k, width in enumerate((brightness, contrast, saturation, hue)) if width > 0]
    if x.shape[1] != 3:
        used = [k for k in used if CHANGES[k] in (_colour.brightness, _colour.contrast)]
    changed = x.clone()
    for step in order.unbind(1):
        for k in used:
            at = (step == k).nonzero()[:, 0]
            amount = amounts[k][at, None, None, None].to(x.dtype)
            changed[at] = CHANGES[k](changed[at], amount).clamp_(0, 1)
    return changed, y
