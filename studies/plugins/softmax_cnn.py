"""The first network as a lab built it: with a softmax in front of a loss that expects logits."""

from __future__ import annotations

from torch import nn

from stresslens.plugins import Shape
from stresslens.plugins.models.first_cnn import first_cnn


def softmax_cnn(shape: Shape, classes: int) -> nn.Module:
    return nn.Sequential(first_cnn(shape, classes), nn.Softmax(1))
