from __future__ import annotations

import torch
from torch import Tensor, nn

from stresslens.core.attack_base import Watch, batched_mean_logits, gradient, likely_others, narrowed
from stresslens.core.ball import Ball
from stresslens.core.types import Count, NonNegative
from stresslens.plugins.attacks._losses import margin_targeted, margin_towards
from stresslens.plugins.attacks._minimal_perturbation import Smallest
from stresslens.plugins.attacks._plane import onto_plane


def deepfool(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    ball: Ball,
    watch: Watch,
    target: Tensor | None,
    start: Tensor | None,
    *,
    steps: Count = 50,
    overshoot: NonNegative = 0.02,
    targets: Count | None = None,
) -> Tensor:
    """Steps to the nearest linearised decision boundary until the model is fooled (Moosavi-Dezfooli
    et al. 2016, algorithm 2; l2, linf and l1), `overshoot` beyond it: a quick, small perturbation,
    not the smallest.

    The classes tried are the `targets` likeliest others (by default nine, at most all), or the
    `target` alone. A step stays inside the box, which the paper leaves out. Returns the adversarial
    where it lies inside the ball, else where the way to it leaves the ball. For a linear model, all
    classes tried and the box inactive, the perturbation is 1 + overshoot times the smallest.
    """
    smallest, rows = Smallest(x, y, ball, target), torch.arange(len(x), device=x.device)
    if not len(x):
        return x.clone()
    z = x if start is None else start
    logits = batched_mean_logits(model, x)
    keep = watch(rows, x, logits)
    smallest.see(rows, x, logits)
    above = margin_targeted if target is None else margin_towards
    aims = torch.stack([target] if target is not None else likely_others(logits, y, targets))  # (T, N)
    origin, last, dropped = x, x.clone(), ~keep
    way = z - x
    for _ in range(steps if not dropped.all() else 0):
        every = len(aims)
        stacked, values, grads = gradient(
            model, z.repeat(every, 1, 1, 1), above, y[rows].repeat(every), aims.flatten()
        )
        logits = stacked[: len(rows)]
        values, grads = values.reshape(every, -1), grads.reshape(every, *z.shape)
        ways = torch.stack([onto_plane(z, grad, -value, ball.norm) for grad, value in zip(grads, values)])
        distance = torch.stack([ball.size(each) for each in ways])
        reached = torch.stack([(g * w).flatten(1).sum(1) for g, w in zip(grads, ways)])
        short = reached < -values * (1 - 1e-4)  # the box or a gradient of zero keeps it from the plane
        nearest = torch.where(short, torch.finfo(z.dtype).max, distance).argmin(0)
        each = torch.arange(len(rows), device=x.device)
        keep = watch(rows, z, logits, None, grads[nearest, each])
        dropped[rows[~keep]] = True
        going = keep & ~smallest.see(rows, z, logits)
        way = way + ways[nearest, each]
        last[rows] = z
        go_on = narrowed(going)
        if go_on is not None:
            rows, origin, way, z, aims, going = (
                rows[go_on],
                origin[go_on],
                way[go_on],
                z[go_on],
                aims[:, go_on],
                going[go_on],
            )
        if not len(rows):
            break
        z = torch.where(going.reshape(-1, 1, 1, 1), (origin + (1 + overshoot) * way).clamp(0, 1), z)
        last[rows] = z
    rows = (~dropped).nonzero().flatten()
    cut = ball.select(rows).project(last[rows], x[rows])
    logits = batched_mean_logits(model, cut)
    watch(rows, cut, logits)
    smallest.see(rows, cut, logits)
    return smallest.x_adv()


def may_be_flat() -> bool:
    return True
