from __future__ import annotations

from torch import Tensor, nn

from stresslens.core.types import Loss


def supervised(net: nn.Module, inputs: Tensor, y: Tensor, *, loss: Loss = "cross_entropy") -> Tensor:  # type: ignore[assignment]
    """Supervised training: the loss of the net's logits against the labels.

    `loss` is `train.loss` unless given here.
    """
    return loss(net(inputs), y)
