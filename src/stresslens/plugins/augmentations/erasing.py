from __future__ import annotations

from typing import Literal

from torch import Tensor

from stresslens.core.draws import Draws
from stresslens.core.types import Chance
from stresslens.plugins.augmentations._box import between, boxes, filled, first, start
from stresslens.plugins.augmentations._chance import chosen
from stresslens.plugins.augmentations._ranges import PositiveRange, ShareRange


def erasing(
    x: Tensor,
    y: Tensor,
    draws: Draws,
    *,
    scale: ShareRange = (0.02, 0.33),
    ratio: PositiveRange = (0.3, 3.3),
    value: Chance | Literal["random"] = 0.0,
    chance: Chance = 0.5,
) -> tuple[Tensor, Tensor]:
    """Random erasing: fills a random box of an image with `value`, with probability `chance` (Zhong
    et al. 2020).

    The box has a share of the area from `scale`, and a ratio of height to width from `ratio`. It is
    inside the image and smaller than it; where none of ten drawn boxes is, nothing is erased. With
    `value: random` every value in the box is drawn from [0, 1).
    """
    mask = chosen(draws, chance)
    height, width = x.shape[2:]
    drawn_height, drawn_width, place = boxes(draws, (height, width), scale, ratio)
    h, w = drawn_height.round(), drawn_width.round()
    fits = (h < height) & (w < width)  # (N, attempts)
    at = first(fits)[:, None]
    h, w = h.gather(1, at), w.gather(1, at)
    top, left = start(place[:, :1], height - h), start(place[:, 1:], width - w)
    h = h.where((mask & fits.any(1))[:, None], 0)
    if value != "random":
        return filled(x, between(x, top, h, left, w), value), y
    where = (h > 0)[:, 0].nonzero()[:, 0]
    noise = draws.fork(draws.position).select(where).uniform(*x.shape[1:]).to(x.dtype)
    box = between(x, top, h, left, w)
    erased = x.clone()
    erased[where] = noise.where(box[where], x[where])
    return erased, y
