from __future__ import annotations

from torch import Tensor, nn

from stresslens.core.types import Loss, PluginOption


def supervised(
    net: nn.Module, inputs: Tensor, y: Tensor, *, loss: PluginOption[Loss] = "cross_entropy"
) -> Tensor:
    """Supervised training: the loss of the net's logits against the labels.

    `loss` is `train.loss` unless given here.
    """
    return loss(logits=net(inputs), y=y)
