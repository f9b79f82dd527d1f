"""Shared by objectives that compare augmented versions of the same images."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from stresslens.core.errors import ConfigError
from stresslens.core.types import Augmentation, PluginOption, Step


def views_of(
    x: Tensor, y: Tensor, augmentation: PluginOption[Augmentation], step: Step
) -> tuple[Tensor, Tensor]:
    """Two versions of images x (N, C, H, W), each drawn for itself. Raises ConfigError for an augmentation
    that mixes labels or changes the size."""
    first, second = (_view(x, y, augmentation, step, number) for number in (1, 2))
    return first, second


def _view(x: Tensor, y: Tensor, augmentation: Any, step: Step, number: int) -> Tensor:
    classes = y.shape[1] if y.ndim == 2 else int(y.max()) + 1
    images: Tensor
    images, labels = augmentation(x=x, y=y, draws=step.draws.fork(number), classes=classes)
    if labels is not y or images.shape != x.shape:
        raise ConfigError(
            "the objective compares versions of the same image; its option `augmentation` takes one that "
            "keeps labels and sizes. Mix images, or crop them to another size, in train.augment"
        )
    return images
