from __future__ import annotations

import torch
from torch import Tensor, nn

from stresslens.core.attack_base import Watch, batched_mean_logits, gradient, likely_others, narrowed
from stresslens.core.ball import Ball
from stresslens.core.types import Count, NonNegative
from stresslens.plugins.attacks._losses import margin_targeted, margin_towards
from stresslens.plugins.attacks._minimal_perturbation import Smallest
from stresslens.plugins.attacks._plane import onto_plane


# long: options are spelled out, one a line, and the loop reads in one piece
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
    """DeepFool: steps to the nearest linearised decision boundary until the model is fooled.

    See Moosavi-Dezfooli et al. (2016), algorithm 2; here in l2, linf and l1. Steps go `overshoot`
    beyond the boundary. The result is a small perturbation, found quickly, but not the smallest.

    The attack tries the `targets` most likely other classes (by default nine, at most all), or the
    `target` alone. Unlike in the paper, a step stays inside the box. Returns the adversarial image
    if it is inside the ball, or else its projection onto the ball. For a linear model, with all
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
    path = z - x
    for _ in range(steps if not dropped.all() else 0):
        count = len(aims)
        stacked, values, grads = gradient(
            model, z.repeat(count, 1, 1, 1), above, y[rows].repeat(count), aims.flatten()
        )
        logits = stacked[: len(rows)]
        values, grads = values.reshape(count, -1), grads.reshape(count, *z.shape)
        moves = torch.stack([onto_plane(z, grad, -value, ball.norm) for grad, value in zip(grads, values)])
        distance = torch.stack([ball.size(move) for move in moves])
        reached = torch.stack([(g * move).flatten(1).sum(1) for g, move in zip(grads, moves)])
        short = reached < -values * (1 - 1e-4)  # the box, or a zero gradient, keeps it from the plane
        nearest = torch.where(short, torch.finfo(z.dtype).max, distance).argmin(0)
        image = torch.arange(len(rows), device=x.device)
        keep = watch(rows, z, logits, None, grads[nearest, image])
        dropped[rows[~keep]] = True
        active = keep & ~smallest.see(rows, z, logits)
        path = path + moves[nearest, image]
        last[rows] = z
        remaining = narrowed(active)
        if remaining is not None:
            rows, origin, path, z, active = (v[remaining] for v in (rows, origin, path, z, active))
            aims = aims[:, remaining]
        if not len(rows):
            break
        z = torch.where(active.reshape(-1, 1, 1, 1), (origin + (1 + overshoot) * path).clamp(0, 1), z)
        last[rows] = z
    rows = (~dropped).nonzero().flatten()
    projected = ball.select(rows).project(last[rows], x[rows])
    logits = batched_mean_logits(model, projected)
    watch(rows, projected, logits)
    smallest.see(rows, projected, logits)
    return smallest.x_adv()
