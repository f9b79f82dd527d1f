"""The attack that lab C used as PGD. It is wrong; it is kept to show by how much it misled."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from stresslens.plugins import Ball, Count, Draws, Positive, gradient


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
    """PGD with a mistake: each step stores the *image* in place of the perturbation: δ ← clip(x + δ).

    Every step first clamps the perturbation, then replaces it. So the gradient of the next step is
    taken at x + δ, which is about 2x, and the evaluated image is clip(x + δ) = clip(2x + …). It is
    outside the ball, and the attack is weaker than PGD. Even at radius 0 it changes the images.
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
