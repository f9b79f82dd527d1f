from __future__ import annotations

import torch
from torch import Tensor, nn

from stresslens.core.attack_base import (
    MOST_TARGETS,
    STACK,
    Watch,
    batched_mean_logits,
    gradient,
    likely_others,
    narrowed,
)
from stresslens.core.ball import Ball
from stresslens.core.draws import Draws
from stresslens.core.types import Chance, Count, Decay, Positive
from stresslens.plugins.attacks._losses import LossAt, margin_targeted, margin_towards
from stresslens.plugins.attacks._minimal_perturbation import Smallest
from stresslens.plugins.attacks._plane import onto_plane

BISECTIONS = 8
NEAR = 1.1
"""An adversarial image is refined only if its size is at most this many times that of the smallest,
and the radius."""
BEYOND = (1e-7, 1e-4, 1e-2)
"""How far a refined image goes beyond the plane; the first that rounding and curvature allow
counts."""


# long: options are spelled out, one a line, and the docstring says where the paper is left
def fab(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    ball: Ball,
    draws: Draws,
    watch: Watch,
    target: Tensor | None,
    start: Tensor | None,
    *,
    steps: Count = 100,
    restarts: Count = 1,
    targets: Count | None = None,
    alpha_max: Chance = 0.1,
    overshoot: Positive = 1.05,
    backward: Decay = 0.9,
) -> Tensor:
    """Fast adaptive boundary (FAB): minimises the perturbation by steps to the linearised boundary.

    See Croce & Hein (2020), "Minimally distorted adversarial examples", algorithm 1, in its
    targeted version: towards the `targets` most likely other classes one after the other (by
    default nine, at most all), or towards the `target` alone. Each step is also biased back towards
    the image.

    Returns the smallest adversarial image inside the ball, or else the iterate inside it that came
    closest. For the smallest of all, give a ball that contains the box: radius 1 in linf, √D in l2,
    D in l1. The first restart begins at `start`, or at the image. Others begin at random points,
    half as far away as the smallest adversarial image so far, or as the radius.

    Differences from the paper: the plane is taken at the iterate itself, so that one pass gives the
    gradient and the prediction. `overshoot` moves the plane instead of extending the step, because
    the box would undo that. The final search is a bisection to the boundary and the exact step to
    the plane there. Therefore, for a linear model, the radius is exact in all three norms, whether
    or not the box is active, if all other classes are among the targets.
    """
    smallest, alive = Smallest(x, y, ball, target), torch.arange(len(x), device=x.device)
    if not len(x):
        return x.clone()
    clean = batched_mean_logits(model, x)
    keep = watch(alive, x, clean)
    smallest.see(alive, x, clean)
    alive = alive[keep]
    above = margin_targeted if target is None else margin_towards
    aims = [target] if target is not None else likely_others(clean, y, targets)
    jobs = [(restart, aim) for restart in range(restarts) for aim in aims]
    while jobs and len(alive):
        some, jobs = jobs[: max(1, STACK // len(alive))], jobs[max(1, STACK // len(alive)) :]
        rows, aim = alive.repeat(len(some)), torch.cat([aim[alive] for _, aim in some])
        z = torch.cat([_begin(x, ball, smallest.size, draws, start, restart, alive) for restart, _ in some])
        survives = torch.ones(len(x), dtype=torch.bool, device=x.device)
        adversarial = z.clone()
        size = torch.full((len(z),), torch.inf, dtype=x.dtype, device=x.device)
        origin = x[rows]
        for _ in range(steps):
            logits, value, grad = gradient(model, z, above, y[rows], aim)
            value = value.nan_to_num(0, 0, 0)  # without an answer, or towards a masked class
            keep = watch(rows, z, logits, None, grad)
            survives[rows[~keep]] = False
            fooled = smallest.see(rows, z, logits)
            now = torch.where(fooled, ball.size(z - origin), torch.inf)
            adversarial = torch.where((now < size).reshape(-1, 1, 1, 1), z, adversarial)
            size = torch.minimum(size, now)
            remaining = narrowed(keep & survives[rows])
            if remaining is not None:
                rows, aim, origin, z, fooled, value, grad, adversarial, size = (
                    v[remaining] for v in (rows, aim, origin, z, fooled, value, grad, adversarial, size)
                )
            if not len(rows):
                break
            z = _step(z, origin, value, grad, fooled, ball, alpha_max, overshoot, backward)
        _refine(model, x, y, rows, aim, adversarial, size, ball, watch, smallest, above, survives)
        alive = alive[survives[alive]]
    return smallest.x_adv()


def cost(*, steps: int, restarts: int) -> float:
    return steps * restarts * MOST_TARGETS


def may_be_flat() -> bool:
    return True


def _begin(
    x: Tensor, ball: Ball, size: Tensor, draws: Draws, start: Tensor | None, restart: int, alive: Tensor
) -> Tensor:
    if restart == 0:
        return (x if start is None else start)[alive]
    radius = torch.minimum(size, ball.radius(x).flatten())[alive] / 2
    return Ball(ball.norm, radius).sample(x[alive], draws.fork(restart).select(alive))


def _step(
    z: Tensor,
    origin: Tensor,
    value: Tensor,
    grad: Tensor,
    fooled: Tensor,
    ball: Ball,
    alpha_max: float,
    overshoot: float,
    backward: float,
) -> Tensor:
    """The next iterate: a mixture of the projections of z and of the image onto the plane.

    Where z is adversarial, it first moves back towards the image by the factor `backward`.
    """
    z_back = torch.where(fooled.reshape(-1, 1, 1, 1), origin + backward * (z - origin), z)
    both, normal = torch.cat([z_back, origin]), torch.cat([grad, grad])
    rise = (grad * (z - z_back)).flatten(1).sum(1) - value, (grad * (z - origin)).flatten(1).sum(1) - value
    move = onto_plane(both, normal, overshoot * torch.cat(rise), ball.norm)
    near, far = ball.size(move).chunk(2)
    share = (near / (near + far).clamp_min(torch.finfo(z.dtype).tiny)).clamp_max(alpha_max)
    share = share.reshape(-1, 1, 1, 1)
    from_z, from_origin = (both + move).chunk(2)
    return ((1 - share) * from_z + share * from_origin).clamp(0, 1)


def _refine(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    rows: Tensor,
    aim: Tensor,
    adversarial: Tensor,
    size: Tensor,
    ball: Ball,
    watch: Watch,
    smallest: Smallest,
    above: LossAt,
    survives: Tensor,
) -> None:
    """Bisects between image and adversarial image, then steps to the plane at the boundary."""
    limit = torch.minimum(smallest.size, ball.radius(x).flatten())[rows]
    near = (size <= NEAR * limit) & survives[rows]
    rows, aim, adversarial = rows[near], aim[near], adversarial[near]
    if not len(rows):
        return
    origin = x[rows]

    def show(z: Tensor, logits: Tensor, grad: Tensor | None = None) -> Tensor:
        survives[rows[~watch(rows, z, logits, None, grad)]] = False
        return smallest.see(rows, z, logits)

    low, high = torch.zeros_like(size[near]), torch.ones_like(size[near])
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        z = origin + middle.reshape(-1, 1, 1, 1) * (adversarial - origin)
        fooled = show(z, batched_mean_logits(model, z))
        low, high = torch.where(fooled, low, middle), torch.where(fooled, middle, high)
    z = origin + high.reshape(-1, 1, 1, 1) * (adversarial - origin)
    logits, value, grad = gradient(model, z, above, y[rows], aim)
    show(z, logits, grad)
    rise = (grad * (z - origin)).flatten(1).sum(1) - value
    for beyond in BEYOND:
        z = (origin + onto_plane(origin, grad, (1 + beyond) * rise, ball.norm)).clamp(0, 1)
        show(z, batched_mean_logits(model, z))
