"""simple_cnn as lab D evaluated it: in training mode."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from stresslens.plugins import Count, Shape
from stresslens.plugins.models.simple_cnn import simple_cnn


def training_mode_cnn(shape: Shape, classes: int, *, batch: Count = 64) -> nn.Module:
    """simple_cnn with batch norm that always uses the statistics of the batch, `batch` images at a
    time, as a network does that was not put into evaluation mode."""
    return _TrainingMode(simple_cnn(shape, classes, batch_norm=True), batch)


class _TrainingMode(nn.Module):
    """A net with the weights of `net`, in training mode whatever it is told."""

    def __init__(self, net: nn.Module, batch: int) -> None:
        super().__init__()
        self._modules.update(net._modules)
        self.batch = batch

    def train(self, mode: bool = True) -> _TrainingMode:
        return super().train(True)

    def forward(self, x: Tensor) -> Tensor:
        parts = []
        for part in x.split(self.batch):
            for layer in self.children():
                part = layer(part)
            parts.append(part)
        return torch.cat(parts)
