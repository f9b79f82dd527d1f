from __future__ import annotations

import torch
from torch import Tensor, nn

from stresslens.core.attack_base import attacked
from stresslens.core.ball import Ball, Norm
from stresslens.core.types import Attack, Loss, PluginOption, Radius, Step
from stresslens.plugins.objectives._overfitting_guard import GUARD, GUARDED, guarded, hard


def free(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    step: Step,
    *,
    loss: PluginOption[Loss] = "cross_entropy",
    norm: Norm = "linf",
    eps: Radius = 8 / 255,
    guard: PluginOption[Attack] = GUARD,
) -> Tensor:
    """Free adversarial training: one backward pass updates weights and perturbation.

    See Shafahi et al. (2019), algorithm 1. It costs as much as plain training. `train.replay` shows
    each batch several times (in the paper 4 to 10 times, with as many times fewer epochs).

    Each position of the batch keeps its perturbation for the next batch; it moves one radius along
    the gradient each time (`Ball.gradient_step`). The paper clips it to the ball only; here it also
    stays in the box, so that it is always the difference that was added. Reports the guard's accuracy
    as `adversarial` does. Raises ConfigError for an invalid radius.
    """
    ball = Ball(norm, eps)
    carried = step.carried.get("perturbation", x[:0])
    known = min(len(carried), len(x))
    begin = x.clone()
    begin[:known] += carried[:known].to(x.dtype)
    x_adv = ball.project(begin, x).requires_grad_()
    with attacked(model):
        guarded(model, x, hard(y), lambda: x_adv.detach()[:GUARDED], step, ball=ball, guard=guard)

    def ascend(grad: Tensor) -> None:
        current = x_adv.detach()
        moved = ball.project(ball.gradient_step(grad.nan_to_num(0, 0, 0), current, ball.radius(x)), x) - x
        step.carried["perturbation"] = torch.cat([moved, carried[len(x) :]])

    x_adv.register_hook(ascend)
    return loss(logits=model(x_adv), y=y)
