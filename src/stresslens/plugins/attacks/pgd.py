from __future__ import annotations

import torch
from torch import Tensor, nn

from stresslens.core.attack_base import STACK, Best, Watch, batched_mean_logits, gradient, narrowed, per_image
from stresslens.core.ball import Ball, falling
from stresslens.core.draws import Draws
from stresslens.core.types import Count, Decay, Loss, PluginOption, Positive


# long: options are spelled out, one a line, and the loop reads in one piece
def pgd(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    ball: Ball,
    draws: Draws,
    watch: Watch,
    target: Tensor | None,
    start: Tensor | None,
    *,
    steps: Count = 40,
    step_size: Positive | None = None,
    relative_step: Positive | None = None,
    restarts: Count = 1,
    random_start: bool = True,
    momentum: Decay = 0.0,
    loss: PluginOption[Loss] = "cross_entropy",
) -> Tensor:
    """Projected gradient descent (Madry et al. 2018): steepest steps, projected onto ball and box.

    `step_size` is in pixel units, `relative_step` is a share of the radius. By default all steps
    together are 2.5 radii long, enough to cross the ball. `momentum` averages the gradients, each
    scaled to a mean absolute value of 1 (Dong et al. 2018). The first restart begins at `start` if
    it is given. Returns the best iterate of all restarts.

    In l1 a step goes along the gradient itself, and the exact projection onto ball and box (Croce &
    Hein 2021, "Mind the box", proposition 2.1) makes it sparse. Its Euclidean length falls from 4
    radii to 0.02 by default. The last step goes to the farthest point along the gradient. For a
    linear model of two classes PGD reaches the optimum in all three norms while the box is
    inactive, in linf and l1 also at the box.
    """
    best, sign = Best(x, y, target), 1 if target is None else -1
    label = y if target is None else target
    alive, sparse = torch.arange(len(x), device=x.device), ball.norm == "l1"
    attempt = 0
    while attempt < restarts and len(alive):
        together = min(restarts - attempt, max(1, STACK // len(alive)))
        begins = [
            _begin(x, ball, draws, start if attempt + i == 0 else None, attempt + i, alive, random_start)
            for i in range(together)
        ]
        rows, z = alive.repeat(together), torch.cat(begins)
        origin, around, velocity = x[rows], ball.select(rows), torch.zeros_like(z)
        survives = torch.ones(len(x), dtype=torch.bool, device=x.device)
        for step in range(steps + 1):
            if step < steps:
                logits, values, grad = gradient(model, z, per_image(loss), label[rows])
                keep = watch(rows, z, logits, sign * values, grad)
            else:
                logits = batched_mean_logits(model, z)
                keep = watch(rows, z, logits)
            best.update(rows, z, logits)
            survives[rows[~keep]] = False
            remaining = narrowed(keep & survives[rows])
            if remaining is not None:
                rows, z, grad, velocity, origin = (v[remaining] for v in (rows, z, grad, velocity, origin))
                around = around.select(remaining)
            if step == steps or not len(rows):
                break
            if momentum:
                scale = grad.abs().flatten(1).mean(1).clamp_min(1e-30).reshape(-1, 1, 1, 1)
                grad = velocity = momentum * velocity + grad / scale
            radius = around.radius(z)
            if sparse and step == steps - 1:
                z = around.farthest(sign * grad, origin)
                continue
            relative = relative_step or (falling(step, steps) if sparse else 2.5 / steps)
            length = step_size if step_size is not None else radius * relative
            z = around.project(around.gradient_step(sign * grad, z, length), origin)
        alive, attempt = alive[survives[alive]], attempt + together
    return best.x_adv


def step_length(*, eps: float, steps: int, step_size: float | None, relative_step: float | None) -> float:
    if step_size is not None:
        return step_size
    return relative_step * eps if relative_step is not None else 2.5 * eps / steps


def _begin(
    x: Tensor, ball: Ball, draws: Draws, start: Tensor | None, attempt: int, alive: Tensor, random_start: bool
) -> Tensor:
    if start is not None:
        return start[alive]
    if not random_start:
        return x[alive]
    return ball.select(alive).sample(x[alive], draws.fork(attempt).select(alive))
