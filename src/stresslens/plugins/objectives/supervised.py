from __future__ import annotations

from torch import Tensor, nn

from stresslens.core.outputs import auxiliary_logits
from stresslens.core.types import Loss, NonNegative, PluginOption


def supervised(
    net: nn.Module,
    inputs: Tensor,
    y: Tensor,
    *,
    loss: PluginOption[Loss] = "cross_entropy",
    auxiliary_weight: NonNegative = 0.3,
) -> Tensor:
    """Supervised training: the loss of the net's logits against the labels.

    Each auxiliary head that the net has in training mode adds its loss times `auxiliary_weight`
    (0.3 in Szegedy et al. 2015, section 5). `loss` is `train.loss` unless given here.
    """
    with auxiliary_logits(net) as auxiliary:
        value = loss(logits=net(inputs), y=y)
    for logits in auxiliary:
        value = value + auxiliary_weight * loss(logits=logits, y=y)
    return value
