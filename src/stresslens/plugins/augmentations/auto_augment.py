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
    pairs = POLICIES[policy]
    pair = draws.integers(len(pairs))
    left_out = set(NAMES) - set(for_channels(NAMES, x.shape[1]))
    chosen_steps = []
    for k in range(2):
        steps = [each[k] for each in pairs]
        number, probability, magnitude = (
            torch.tensor(values, device=x.device)[pair]
            for values in (
                [-1 if name in left_out else NAMES.index(name) for name, _, _ in steps],
                [likely for _, likely, _ in steps],
                [level for _, _, level in steps],
            )
        )
        which = number.where(mask & (draws.uniform() < probability), -1)
        chosen_steps.append((which, magnitude.double() / 9, 2 * draws.integers(2) - 1))
    which, strength, signs = (torch.stack(values, 1) for values in zip(*chosen_steps))
    return applied(x, which, strength, signs, NAMES, KNOWN), y
