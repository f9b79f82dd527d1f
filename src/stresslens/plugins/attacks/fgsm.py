from __future__ import annotations

import torch
from torch import Tensor, nn

from stresslens.core.attack_base import Best, Watch, batched_mean_logits, gradient, per_image
from stresslens.core.ball import Ball
from stresslens.core.draws import Draws
from stresslens.core.types import Loss, PluginOption, Positive


def fgsm(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    ball: Ball,
    draws: Draws,
    watch: Watch,
    target: Tensor | None,
    *,
    loss: PluginOption[Loss] = "cross_entropy",
    relative_step: Positive = 1.0,
    random_start: bool = False,
) -> Tensor:
    """Fast gradient sign method: one step along the gradient's sign (Goodfellow et al. 2015).

    In l2 and l1 the step is in the steepest direction; in l1 it goes on to the next pixel where the
    box ends one's way. `relative_step` is its length as a share of the radius. With `random_start`
    it begins at a random point of the ball (Wong et al. 2020, who step 1.25 radii). Returns the
    better of start and end. For a linear model of two classes it is optimal in all three norms
    while the box is inactive, and in linf and l1 also with the box active.
    """
    rows, best = torch.arange(len(x), device=x.device), Best(x, y, target)
    begin = ball.sample(x, draws) if random_start else x
    sign = 1 if target is None else -1
    logits, values, grad = gradient(model, begin, per_image(loss), y if target is None else target)
    watch(rows, begin, logits, sign * values, grad)
    best.update(rows, begin, logits)
    x_adv = ball.project(ball.steepest_step(sign * grad, begin, relative_step * ball.radius(x)), x)
    logits = batched_mean_logits(model, x_adv)
    watch(rows, x_adv, logits)
    best.update(rows, x_adv, logits)
    return best.x_adv


def step_length(*, eps: float, relative_step: float) -> float:
    return relative_step * eps
