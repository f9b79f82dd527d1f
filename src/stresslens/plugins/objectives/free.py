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
    """The loss at a perturbation that the same backward pass improves (Shafahi et al. 2019,
    algorithm 1): adversarial training at the price of plain training. `train.replay` shows each
    batch so many times (theirs: 4 to 10, with as many times fewer epochs).

    The perturbation is carried from batch to batch, place by place, and moves a whole radius in the
    steepest direction each time. Where the paper clips it to the ball alone, here it stays in the
    box as well, so that it is always what was added. Reports the guard's accuracy as `adversarial`
    does. Raises ConfigError for a radius that cannot be.
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
        at = x_adv.detach()
        moved = ball.project(at + ball.radius(x) * ball.steepest(grad.nan_to_num(0, 0, 0)), x) - x
        step.carried["perturbation"] = torch.cat([moved, carried[len(x) :]])

    x_adv.register_hook(ascend)  # type: ignore[no-untyped-call]
    return loss(logits=model(x_adv), y=y)
