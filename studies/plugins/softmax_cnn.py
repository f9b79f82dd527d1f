"""The first network of lab G as it was handed in: a softmax layer at its end, in front of a loss that takes logits."""

from __future__ import annotations

from torch import nn

from stresslens.core.types import Shape
from stresslens.models.first_cnn import first_cnn


def softmax_cnn(shape: Shape, classes: int) -> nn.Module:
    """first_cnn that returns probabilities: cross-entropy then sees logits between 0 and 1, whose gradients are small."""
    return nn.Sequential(first_cnn(shape, classes), nn.Softmax(1))
