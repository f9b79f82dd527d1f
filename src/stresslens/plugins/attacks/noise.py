from __future__ import annotations

import torch
from torch import Tensor, nn

from stresslens.core.attack_base import Best, Watch, batched_mean_logits, narrowed
from stresslens.core.ball import Ball
from stresslens.core.draws import Draws
from stresslens.core.types import Count


def noise(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    ball: Ball,
    draws: Draws,
    watch: Watch,
    target: Tensor | None,
    *,
    tries: Count = 10,
) -> Tensor:
    """Random points of the ball, the best of `tries`; in linf every other try is a random corner.

    It is a baseline: an attack that uses the gradient should break every image that noise breaks.
    """
    rows, best = torch.arange(len(x), device=x.device), Best(x, y, target)
    for attempt in range(tries):
        origin, around = x[rows], ball.select(rows)
        x_adv = around.sample(origin, draws.fork(attempt).select(rows))
        if ball.norm == "linf" and attempt % 2:
            x_adv = around.project(origin + around.radius(origin) * (x_adv - origin).sign(), origin)
        logits = batched_mean_logits(model, x_adv)
        keep = watch(rows, x_adv, logits)
        best.update(rows, x_adv, logits)
        remaining = narrowed(keep)
        if remaining is not None:
            rows = rows[remaining]
        if not len(rows):
            break
    return best.x_adv


def needs_gradient() -> bool:
    return False
