"""Shared by the residual networks of RobustBench: blocks whose tensors have the names that they have
there."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from stresslens.core.pretrained import Preprocessing
from stresslens.core.types import Shape
from stresslens.plugins.models._foreign import Moments, preparation_of


def plain_or(*, shape: Shape, mean: Moments | None, std: Moments | None) -> Preprocessing:
    """Images in [0, 1] as they are, or (x - mean) / std."""
    return preparation_of(shape=shape, mean=mean, std=std, scale=1.0, size=None)


class WideBlock(nn.Module):
    """Two 3×3 convolutions after batch norm and ReLU, around which the input goes (Zagoruyko & Komodakis
    2016). Where the widths differ, the way around begins after the first ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.bn1, self.relu1 = nn.BatchNorm2d(inputs), nn.ReLU()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn2, self.relu2 = nn.BatchNorm2d(outputs), nn.ReLU()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.dropout = nn.Dropout(dropout)
        self.convShortcut = None if inputs == outputs else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        active = self.relu1(self.bn1(x))
        out = self.relu2(self.bn2(self.conv1(active)))
        around = x if self.convShortcut is None else self.convShortcut(active)
        result: Tensor = around + self.conv2(self.dropout(out))
        return result


class Blocks(nn.Module):
    """Blocks in a row, under the name `layer`."""

    def __init__(self, blocks: list[WideBlock]) -> None:
        super().__init__()
        self.layer = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.layer(x)
        return result


class PreActBlock(nn.Module):
    """Two 3×3 convolutions after batch norm and ReLU, around which the input goes (He et al. 2016). Where
    the shapes differ, the way around is a 1×1 convolution, after the first ReLU if `after_relu`."""

    def __init__(self, inputs: int, outputs: int, stride: int, after_relu: bool) -> None:
        super().__init__()
        self.after_relu = after_relu
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        active = torch.relu(self.bn1(x))
        around = self.shortcut(active if self.after_relu else x) if hasattr(self, "shortcut") else x
        result: Tensor = around + self.conv2(torch.relu(self.bn2(self.conv1(active))))
        return result
