from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from stresslens.core.draws import Draws
from stresslens.core.types import Chance
from stresslens.plugins.augmentations._chance import chosen
from stresslens.plugins.augmentations._operations import applied, for_channels, known_operations
from stresslens.plugins.augmentations._policies import POLICIES

KNOWN = known_operations()
NAMES = list(KNOWN)


def auto_augment(
    x: Tensor,
    y: Tensor,
    draws: Draws,
    *,
    policy: Literal["imagenet", "cifar10", "svhn"] = "imagenet",
    chance: Chance = 1.0,
) -> tuple[Tensor, Tensor]:
    """AutoAugment: one of 25 pairs of operations that were searched for a data set (Cubuk et al.
    2019).

    Each operation of the pair has its own probability and strength; the direction is drawn. Full
    strength is that of `rand_augment`. The operation colour is only for images of three channels.
    Moved images are interpolated bilinearly. An image is changed with probability `chance`.
    """
    mask = chosen(draws, chance)
    available = for_channels(NAMES, x.shape[1])
    number = {name: k for k, name in enumerate(available)}
    pairs = torch.tensor(
        [[(number.get(name, -1), *values) for name, *values in pair] for pair in POLICIES[policy]],
        device=x.device,
    )  # (25, 2, 3)
    which, probability, magnitude = pairs[draws.integers(len(pairs))].unbind(2)  # (N, 2)
    drawn = [(draws.uniform(), draws.integers(2)) for _ in range(2)]
    likely, direction = (torch.stack(values, 1) for values in zip(*drawn))
    which = which.where(mask[:, None] & (likely < probability), -1)
    return applied(x, which, magnitude.double() / 9, 2 * direction - 1, available, KNOWN), y
