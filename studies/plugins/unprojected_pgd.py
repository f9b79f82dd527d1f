"""The attack that lab C used for PGD: it is wrong, and kept to show by how much it misled."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from stresslens.core.attack_base import gradient
from stresslens.core.ball import Ball
from stresslens.core.draws import Draws
from stresslens.core.types import Count, Positive


def unprojected_pgd(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    ball: Ball,
    draws: Draws,
    *,
    steps: Count = 40,
    step_size: Positive = 0.01,
) -> Tensor:
    """PGD whose every step clamps the perturbation and then keeps the *image* in its place: δ ← clip(x + δ).

    The next step's gradient is taken at x + δ, which by then is about 2x, and what is scored is clip(x + δ) = clip(2x + …): not in
    the ball, and the weaker attack. At radius 0 it already changes the images.
    """
    radius = ball.radius(x)
    delta = ball.sample(x, draws) - x
    for _ in range(steps):
        _, _, grad = gradient(model, (x + delta).clamp(0, 1), _cross_entropy, y)
        delta = (delta + step_size * grad.sign()).clamp(-radius, radius)
        delta = (x + delta).clamp(0, 1)
    return (x + delta).clamp(0, 1)


def _cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(logits, y, reduction="none")
