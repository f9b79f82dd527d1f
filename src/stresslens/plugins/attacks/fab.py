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
"""Only adversarials up to this much larger than the smallest, and than the radius, are worth refining."""
BEYOND = (1e-7, 1e-4, 1e-2)
"""By how much a refined image goes beyond the plane: the least that rounding and curvature allow."""


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
    """The smallest adversarial perturbation, by stepping to the linearised decision boundary while
    drawn back to the image (fast adaptive boundary; Croce & Hein 2020, "Minimally distorted
    adversarial examples", algorithm 1, targeted: `targets` of the likeliest other classes one by
    one, by default nine, at most all; or only the `target`).

    Returns the smallest adversarial inside the ball, else the iterate inside it that came closest;
    for the smallest of all, give a ball that holds the box: radius 1 in linf, √D in l2, D in l1.
    The first restart begins at `start`, or at the image; others at random points half as far away
    as the smallest so far, or as the radius.

    Where the paper is left: the plane is taken at the iterate itself, so that one pass gives
    gradient and verdict; the plane is moved by `overshoot`, not the step stretched, which the box
    would undo; and the final search is bisection to the boundary and the exact step to the plane
    there. So for a linear model the radius is exact, in all three norms, whether or not the box is
    active, provided that all other classes are among the targets.
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
        found, size = z.clone(), torch.full((len(z),), torch.inf, dtype=x.dtype, device=x.device)
        origin = x[rows]
        for _ in range(steps):
            logits, value, grad = gradient(model, z, above, y[rows], aim)
            keep = watch(rows, z, logits, None, grad)
            survives[rows[~keep]] = False
            fooled = smallest.see(rows, z, logits)
            now = torch.where(fooled, ball.size(z - origin), torch.inf)
            found = torch.where((now < size).reshape(-1, 1, 1, 1), z, found)
            size = torch.minimum(size, now)
            go_on = narrowed(keep & survives[rows])
            if go_on is not None:
                rows, aim, origin, z, fooled, value, grad, found, size = (
                    v[go_on] for v in (rows, aim, origin, z, fooled, value, grad, found, size)
                )
            if not len(rows):
                break
            z = _step(z, origin, value, grad, fooled, ball, alpha_max, overshoot, backward)
        _refine(model, x, y, rows, aim, found, size, ball, watch, smallest, above, survives)
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
    """From z, drawn back towards the image where it fools, to the plane; mixed with the way from
    the image to the plane."""
    z_back = torch.where(fooled.reshape(-1, 1, 1, 1), origin + backward * (z - origin), z)
    both, normal = torch.cat([z_back, origin]), torch.cat([grad, grad])
    rise = (grad * (z - z_back)).flatten(1).sum(1) - value, (grad * (z - origin)).flatten(1).sum(1) - value
    way = onto_plane(both, normal, overshoot * torch.cat(rise), ball.norm)
    near, far = ball.size(way).chunk(2)
    share = (
        (near / (near + far).clamp_min(torch.finfo(z.dtype).tiny)).clamp_max(alpha_max).reshape(-1, 1, 1, 1)
    )
    reached, drawn = (both + way).chunk(2)
    return ((1 - share) * reached + share * drawn).clamp(0, 1)


def _refine(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    rows: Tensor,
    aim: Tensor,
    found: Tensor,
    size: Tensor,
    ball: Ball,
    watch: Watch,
    smallest: Smallest,
    above: LossAt,
    survives: Tensor,
) -> None:
    """Bisection between image and adversarial, then the smallest step to the plane at the boundary."""
    limit = torch.minimum(smallest.size, ball.radius(x).flatten())[rows]
    near = (size <= NEAR * limit) & survives[rows]
    rows, aim, found = rows[near], aim[near], found[near]
    if not len(rows):
        return
    origin = x[rows]

    def show(z: Tensor, logits: Tensor, grad: Tensor | None = None) -> Tensor:
        survives[rows[~watch(rows, z, logits, None, grad)]] = False
        return smallest.see(rows, z, logits)

    low, high = torch.zeros_like(size[near]), torch.ones_like(size[near])
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        z = origin + middle.reshape(-1, 1, 1, 1) * (found - origin)
        fooled = show(z, batched_mean_logits(model, z))
        low, high = torch.where(fooled, low, middle), torch.where(fooled, middle, high)
    z = origin + high.reshape(-1, 1, 1, 1) * (found - origin)
    logits, value, grad = gradient(model, z, above, y[rows], aim)
    show(z, logits, grad)
    rise = (grad * (z - origin)).flatten(1).sum(1) - value
    for beyond in BEYOND:
        z = (origin + onto_plane(origin, grad, (1 + beyond) * rise, ball.norm)).clamp(0, 1)
        show(z, batched_mean_logits(model, z))
