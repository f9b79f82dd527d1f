"""Attacks that are wrong on purpose."""

from __future__ import annotations

from torch import Tensor, nn

from stresslens.core.attack_base import gradient
from stresslens.core.ball import Ball


def ten_times_too_far(model: nn.Module, x: Tensor, y: Tensor, ball: Ball) -> Tensor:
    """A step of the gradient's sign of ten radii, and no projection."""
    _, _, grad = gradient(model, x, lambda logits, label: -logits.gather(1, label[:, None]).squeeze(1), y)
    return (x + 10 * ball.radius(x) * grad.sign()).clamp(0, 1)
