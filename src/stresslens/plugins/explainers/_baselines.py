from __future__ import annotations

import torch
from torch import Tensor

from stresslens.core.blur import blurred
from stresslens.core.data import Split
from stresslens.core.errors import ConfigError


def baseline(x: Tensor, fill: float | str, train: Split | None, name: str) -> Tensor:
    """Images (N, C, H, W) that say nothing, in the place of x: of one grey, of the training images'
    mean colour, or x blurred.

    Raises ConfigError for the mean without training images.
    """
    if isinstance(fill, int | float):
        return torch.full_like(x, float(fill))
    if fill == "blur":
        return blurred(x, max(x.shape[2:]) / 8)
    if train is None:
        raise ConfigError(
            f"{name}: the mean is that of the training images, which are not given here; take a grey, or blur"
        )
    return _mean(train).to(x)[None, :, None, None].expand_as(x)


def _mean(split: Split) -> Tensor:
    total = torch.stack([piece.double().sum((0, 2, 3)) for piece in split.pieces()]).sum(0)
    return (total / (len(split) * split.shape[1] * split.shape[2] * split.scale)).float()
