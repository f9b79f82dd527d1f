from __future__ import annotations

from typing import Literal

from torch import nn

from stresslens.core.types import Shape


def linear(shape: Shape, classes: int, *, start: Literal["library", "normal"] = "library") -> nn.Module:
    """A linear model: one affine map from pixels to logits.

    `start` is torch's initialisation (`library`), or weights and bias drawn from N(0, 1)
    (`normal`).
    """
    channels, height, width = shape
    layer = nn.Linear(channels * height * width, classes)
    if start == "normal":
        nn.init.normal_(layer.weight)
        nn.init.normal_(layer.bias)
    return nn.Sequential(nn.Flatten(), layer)
