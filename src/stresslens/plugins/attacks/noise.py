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
    """Random points of the ball, in linf random corners of it every other time; the best of so many
    tries. A baseline, not an attack: whatever it breaks, a gradient should break too."""
    rows, best = torch.arange(len(x), device=x.device), Best(x, y, target)
    for attempt in range(tries):
        own, origin, around = draws.fork(attempt).select(rows), x[rows], ball.select(rows)
        x_adv = around.sample(origin, own)
        if ball.norm == "linf" and attempt % 2:
            x_adv = around.project(origin + around.radius(origin) * (x_adv - origin).sign(), origin)
        logits = batched_mean_logits(model, x_adv)
        keep = watch(rows, x_adv, logits)
        best.update(rows, x_adv, logits)
        go_on = narrowed(keep)
        if go_on is not None:
            rows = rows[go_on]
        if not len(rows):
            break
    return best.x_adv
