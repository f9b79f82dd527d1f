from __future__ import annotations

from torch import Tensor, nn

from stresslens.core.types import Loss


def supervised(model: nn.Module, x: Tensor, y: Tensor, *, loss: Loss = "cross_entropy") -> Tensor:  # type: ignore[assignment]
    """The loss of the model's logits against the labels; `loss` is `train.loss` unless given here."""
    return loss(model(x), y)
