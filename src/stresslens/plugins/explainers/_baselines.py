"""Baselines of explainers: a constant grey, the training mean, or a blurred image."""

from __future__ import annotations

import torch
from torch import Tensor

from stresslens.core.blur import blurred
from stresslens.core.data import Split
from stresslens.core.errors import ConfigError


def baseline(x: Tensor, fill: float | str, train: Split | None, name: str) -> Tensor:
    """Uninformative images (N, C, H, W) for x: one grey, the training images' mean colour, or x
    blurred.

    `name` is the explainer's, for errors. Raises ConfigError for the mean without training images.
    """
    if isinstance(fill, int | float):
        return torch.full_like(x, float(fill))
    if fill == "blur":
        return blurred(x, max(x.shape[2:]) / 8)
    if train is None:
        raise ConfigError(f"{name}: the mean needs training images, and none are given; take a grey, or blur")
    return _mean(train).to(x)[None, :, None, None].expand_as(x)


def _mean(split: Split) -> Tensor:
    total = torch.stack([piece.double().sum((0, 2, 3)) for piece in split.pieces()]).sum(0)
    return (total / (len(split) * split.shape[1] * split.shape[2] * split.scale)).float()
