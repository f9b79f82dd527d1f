"""Layers derived from torch's, which compute something else."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class OwnReLU(nn.ReLU):
    def forward(self, input: Tensor) -> Tensor:
        return input.relu() - 0.3 * input


class OwnPool(nn.MaxPool2d):
    def forward(self, input: Tensor) -> Tensor:
        return -F.max_pool2d(-input, 2)


class StandardisedConv(nn.Conv2d):
    def forward(self, input: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return F.conv2d(input, 3 * weight, self.bias, self.stride, self.padding)


class ScaledLinear(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return 8 * F.linear(input, self.weight, self.bias)


class OwnSequential(nn.Sequential):
    def forward(self, input: Tensor) -> Tensor:
        for layer in self:
            input = layer(input) + 0.1
        return input
