from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from stresslens.core.draws import Draws
from stresslens.core.errors import ConfigError
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
    image. An image is changed with probability `chance`; the others are kept. Both return images of
    the same size; if that is another size than before, `chance` is 1.
    """
    mask = chosen(draws, chance)
    taken: Any = second if bool(draws.uniform()[0] < share) else first
    new, labels = taken(x=x, y=y, draws=draws, classes=classes)
    if mask.all():
        return new, labels
    if labels.ndim > y.ndim:
        y = F.one_hot(y, classes).to(labels.dtype)
    return new.where(mask[:, None, None, None], x), labels.where(mask.reshape(-1, *[1] * (y.ndim - 1)), y)


def shown_size(*, first: Any, second: Any, chance: float) -> tuple[int, int] | None:
    """The size (H, W) of the images that both return; None: that of the images. Raises ConfigError where
    images of a batch, or batches, would differ in size."""
    sizes = [option.answer_beside("shown_size") for option in (first, second)]
    if sizes[0] != sizes[1]:
        told = ["images of the size they had" if size is None else "{}×{}".format(*size) for size in sizes]
        raise ConfigError(
            f"random_choice: first returns {told[0]} and second {told[1]}; give both the same size, or "
            "leave it out and change the size by another augmentation"
        )
    if sizes[0] is not None and chance < 1:
        raise ConfigError(
            f"random_choice: with chance {chance} some images keep their size and others become "
            "{}×{}; leave out chance, or give it to first and second".format(*sizes[0])
        )
    found: tuple[int, int] | None = sizes[0]
    return found
