from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from stresslens.core.draws import Draws
from stresslens.core.errors import ConfigError
from stresslens.core.types import Chance, Count, Natural
from stresslens.plugins.augmentations._chance import chosen
from stresslens.plugins.augmentations._windows import shown_size, windows


def crop(
    x: Tensor,
    y: Tensor,
    draws: Draws,
    *,
    padding: Natural = 4,
    size: Count | tuple[Count, Count] | None = None,
    chance: Chance = 1.0,
) -> tuple[Tensor, Tensor]:
    """Random crop: pads with `padding` black pixels, then crops a random part.

    The part has the size of the images, or the smaller `size`, which is (height, width) or one
    number for both. With probability `chance` it is a random part, otherwise the middle one. Raises
    ConfigError for a part that is larger than the padded image.
    """
    mask = chosen(draws, chance)
    height, width = shown_size(size=size) or x.shape[2:]
    free = [side + 2 * padding - part for side, part in zip(x.shape[2:], (height, width))]
    if min(free) < 0:
        raise ConfigError(
            f"crop: a part of {height}×{width} is larger than images of {x.shape[2]}×{x.shape[3]} "
            f"with {padding} pixels of padding"
        )
    top, left = (draws.integers(most + 1).where(mask, most // 2) for most in free)
    return windows(F.pad(x, [padding] * 4), top, left, height, width), y
