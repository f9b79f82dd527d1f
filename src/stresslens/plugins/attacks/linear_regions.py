from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from stresslens.core.attack_base import Watch, batched_mean_logits, gradient, likely_others
from stresslens.core.ball import Ball
from stresslens.core.draws import Draws
from stresslens.core.pieces import FLOAT, at_most
from stresslens.core.types import Count
from stresslens.plugins.attacks._losses import margin_targeted, margin_towards
from stresslens.plugins.attacks._minimal_perturbation import Smallest
from stresslens.plugins.attacks._plane import onto_plane
from stresslens.plugins.attacks._random_points import random_point

COARSE, FINE = 3, 5
"""Bisections of the way from the image to a random point, and of later steps."""
BEYOND = 1e-4
"""How far a step goes beyond the plane."""
FEWEST = 2
"""The number of chains of each image is halved after each step, down to this many."""
COPIES = 16
"""Copies of every random point that are in memory at a time: points, gradients, planes, ways back."""


@dataclass
class _Chains:
    """Chains of images z; every tensor is (n, …)."""

    rows: Tensor
    """The image that each chain belongs to; an image has several."""
    z: Tensor
    aim: Tensor
    """The class whose region z is in, or comes nearest to."""
    fooled: Tensor
    """Whether z fools the model."""

    def select(self, keep: Tensor) -> _Chains:
        return _Chains(self.rows[keep], self.z[keep], self.aim[keep], self.fooled[keep])

    def nearest(self, size: Tensor, count: int) -> Tensor:
        """Positions of the `count` chains of each image with the lowest size (n,), those that fool
        the model first."""
        order = size.argsort(stable=True)
        order = order[(~self.fooled[order]).to(torch.uint8).argsort(stable=True)]
        order = order[self.rows[order].argsort(stable=True)]
        rows = self.rows[order]
        rank = torch.arange(len(order), device=rows.device) - torch.searchsorted(rows, rows)
        return order[rank < count]


# long: the closures share the watch and what survives, and the steps read in one piece
def linear_regions(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    ball: Ball,
    draws: Draws,
    watch: Watch,
    target: Tensor | None,
    *,
    starts: Count = 96,
    chains: Count = 8,
    steps: Count = 6,
) -> Tensor:
    """Steps to the planes of linear regions that random points of the whole box find.

    It helps where the gradient near the image leads up the wrong plane, or is zero: there, every
    attack that begins near the image misses a nearer boundary that lies in another region. After
    the linear region attack of Croce, Rauber & Hein (2020, "Scaling up the randomized gradient-free
    adversarial attack", section 3), which solves a program in the region of each adversarial
    point; here a step goes to the exact projection of the image onto the region's plane, inside
    the box.

    `starts` points of the box are drawn for each image, coarse and fine. Where a point fools the
    model (with a `target`: is classified as it), a bisection goes back towards the image. The
    `chains` points whose planes are nearest take up to `steps` steps: to the image's nearest point of
    the plane, and back by bisection where that does not fool the model. Points that do not fool the
    model are taken where there are no others, and step to their own nearest point of the plane. The
    number of chains is halved after each step. Returns the smallest adversarial image inside the
    ball, or else the iterate inside it that came closest. For a maximum of planes it finds the
    smallest radius in all three norms, with the box active or not, if a point finds the nearest
    plane.
    """
    at_once = at_most(len(x), COPIES * FLOAT * starts * x[:1].numel())
    if at_once < len(x):
        of_pieces = [
            linear_regions(
                model,
                x[piece],
                y[piece],
                ball.select(piece),
                draws.select(piece),
                _from(watch, int(piece[0])),
                None if target is None else target[piece],
                starts=starts,
                chains=chains,
                steps=steps,
            )
            for piece in torch.arange(len(x), device=x.device).split(at_once)
        ]
        return torch.cat(of_pieces)
    smallest, everything = Smallest(x, y, ball, target), torch.arange(len(x), device=x.device)
    if not len(x):
        return x.clone()
    survives = torch.ones(len(x), dtype=torch.bool, device=x.device)
    above = margin_targeted if target is None else margin_towards

    def look(rows: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Whether the images z of `rows` fool the model, and the likeliest class to aim at."""
        logits = batched_mean_logits(model, z)
        survives[rows[~watch(rows, z, logits)]] = False
        aim = likely_others(logits, y[rows], 1)[0] if target is None else target[rows]
        return smallest.see(rows, z, logits), aim

    def bisect(which: Tensor, rows: Tensor, near: Tensor, far: Tensor, times: int) -> Tensor:
        """`far`, and where `which` a point nearer to `near` that fools the model as `far` does."""
        which = which & survives[rows]
        if not which.any():
            return far
        rows, start, way = rows[which], near[which], (far - near)[which]
        low, high = torch.zeros_like(way[:, :1, :1, :1]), torch.ones_like(way[:, :1, :1, :1])
        for _ in range(times if survives[rows].any() else 0):
            middle = (low + high) / 2
            fooled = look(rows, start + middle * way)[0].reshape(-1, 1, 1, 1)
            low, high = torch.where(fooled, low, middle), torch.where(fooled, middle, high)
        moved = far.clone()
        moved[which] = start + high * way
        return moved

    look(everything, x)
    found = []
    for index in range(starts):
        rows = everything[survives]
        if not len(rows):
            return smallest.x_adv()
        z = random_point(x[rows], draws.fork(index).select(rows), index)
        fooled, aim = look(rows, z)
        found.append((rows, z, aim, fooled))
    now = _Chains(*(torch.cat(parts) for parts in zip(*found)))
    now.z = bisect(now.fooled, now.rows, x[now.rows], now.z, COARSE)
    for step in range(steps):
        now = now.select(survives[now.rows])
        if not len(now.rows):
            break
        origin = x[now.rows]
        value, grad = gradient(model, now.z, above, y[now.rows], now.aim)[1:]
        begin = torch.where(now.fooled.reshape(-1, 1, 1, 1), origin, now.z)
        rise = (grad * (now.z - begin)).flatten(1).sum(1) - value
        z = (begin + onto_plane(begin, grad, (1 + BEYOND) * rise, ball.norm)).clamp(0, 1)
        if step == 0:
            keep = now.nearest(ball.size(z - origin), chains)
            now, z = now.select(keep), z[keep]
        fooled, aim = look(now.rows, z)
        back = bisect(now.fooled & ~fooled, now.rows, z, now.z, FINE)
        now.z = torch.where((now.fooled & ~fooled).reshape(-1, 1, 1, 1), back, z)
        now.aim, now.fooled = torch.where(fooled | ~now.fooled, aim, now.aim), now.fooled | fooled
        size = ball.size(now.z - x[now.rows])
        now = now.select(now.nearest(size, max(FEWEST, chains // 2 ** (step + 1))))
    return smallest.x_adv()


def _from(watch: Watch, first: int) -> Watch:
    """The watch of a piece of the batch, which begins at position `first`."""

    def watch_piece(
        rows: Tensor, x_adv: Tensor, logits: Tensor, loss: Tensor | None = None, grad: Tensor | None = None
    ) -> Tensor:
        return watch(rows + first, x_adv, logits, loss, grad)

    return watch_piece


def cost(*, starts: int, chains: int, steps: int) -> float:
    return starts * (1 + (1 + COARSE) / 3) + 2 * chains * (1 + (1 + FINE) / 3)


def may_be_flat() -> bool:
    return True
