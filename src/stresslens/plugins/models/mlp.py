from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from stresslens.core.types import Count, Shape


def mlp(shape: Shape, classes: int, *, widths: Sequence[Count] = (100,)) -> nn.Module:
    """A multi-layer perceptron: linear layers with ReLU; `widths` are those of the hidden
    layers."""
    channels, height, width = shape
    sizes = [channels * height * width, *widths]
    layers: list[nn.Module] = [nn.Flatten()]
    for fan_in, fan_out in pairwise(sizes):
        layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], classes))
