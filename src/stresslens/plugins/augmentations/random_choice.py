from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from stresslens.core.draws import Draws
from stresslens.core.types import Augmentation, Chance, PluginOption
from stresslens.plugins.augmentations._chance import chosen


def random_choice(
    x: Tensor,
    y: Tensor,
    draws: Draws,
    classes: int,
    *,
    first: PluginOption[Augmentation] = "mixup",
    second: PluginOption[Augmentation] = "cutmix",
    share: Chance = 0.5,
    chance: Chance = 1.0,
) -> tuple[Tensor, Tensor]:
    """One of two augmentations for each batch, by default mixup or CutMix.

    The `second` is taken with probability `share`, drawn for the batch from the numbers of its first
    image. An image is changed with probability `chance`; the others are kept.
    """
    mask = chosen(draws, chance)
    taken: Any = second if bool(draws.uniform()[0] < share) else first
    new, labels = taken(x=x, y=y, draws=draws, classes=classes)
    if mask.all():
        return new, labels
    if labels.ndim > y.ndim:
        y = F.one_hot(y, classes).to(labels.dtype)
    return new.where(mask[:, None, None, None], x), labels.where(mask.reshape(-1, *[1] * (y.ndim - 1)), y)
