from __future__ import annotations

import torch
from torch import Tensor, nn

from stresslens.core.attack_base import Best, Watch, batched_mean_logits, gradient
from stresslens.core.ball import Ball
from stresslens.core.draws import Draws
from stresslens.core.types import Loss, Positive


def fgsm(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    ball: Ball,
    draws: Draws,
    watch: Watch,
    target: Tensor | None,
    *,
    loss: Loss = "cross_entropy",  # type: ignore[assignment]
    relative_step: Positive = 1.0,
    random_start: bool = False,
) -> Tensor:
    """Fast gradient sign method: one step along the gradient's sign (Goodfellow et al. 2015).

    In l2 and l1 the step is in the steepest direction. `relative_step` is its length as a share of
    the radius. With `random_start` it begins at a random point of the ball (Wong et al. 2020, who
    step 1.25 radii). Returns the better of start and end. For a linear model of two classes it is
    optimal in all three norms while the box is inactive, and in linf also with the box active.
    """
    rows, best = torch.arange(len(x), device=x.device), Best(x, y, target)
    begin = ball.sample(x, draws) if random_start else x
    sign = 1 if target is None else -1
    logits, values, grad = gradient(model, begin, loss, y if target is None else target)
    watch(rows, begin, logits, sign * values, grad)
    best.update(rows, begin, logits)
    x_adv = ball.project(begin + relative_step * ball.radius(x) * ball.steepest(sign * grad), x)
    logits = batched_mean_logits(model, x_adv)
    watch(rows, x_adv, logits)
    best.update(rows, x_adv, logits)
    return best.x_adv
