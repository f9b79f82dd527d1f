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
    """One step of the gradient's sign (in l2 and l1 the steepest direction) to the edge of the ball
    (Goodfellow et al. 2015).

    `relative_step` is the step as a share of the radius; with `random_start` it begins at a random
    point of the ball (Wong et al. 2020, who step 1.25 radii). Returns whichever of its beginning
    and its end fools better. Optimal in all three norms for a linear model of two classes while the
    box is inactive; in linf with the box active too.
    """
    rows, best = torch.arange(len(x), device=x.device), Best(x, y, target)
    begin = ball.sample(x, draws) if random_start else x
    sign = 1 if target is None else -1
    logits, values, grad = gradient(model, begin, per_image(loss), y if target is None else target)
    watch(rows, begin, logits, sign * values, grad)
    best.update(rows, begin, logits)
    x_adv = ball.project(begin + relative_step * ball.radius(x) * ball.steepest(sign * grad), x)
    logits = batched_mean_logits(model, x_adv)
    watch(rows, x_adv, logits)
    best.update(rows, x_adv, logits)
    return best.x_adv


def step_length(*, eps: float, relative_step: float) -> float:
    return relative_step * eps
