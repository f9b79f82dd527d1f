"""Shared by decision-based attacks (HopSkipJump, Boundary): queries and their count, a start, and the
way to the boundary."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from stresslens.core.attack_base import Watch, batched_mean_logits
from stresslens.core.ball import Ball
from stresslens.core.draws import Draws
from stresslens.plugins.attacks._minimal_perturbation import Nearest
from stresslens.plugins.attacks._random_points import random_point

STRETCHES = (1.0, 2.0, 4.0)
"""A given start, and images farther along the way to it, are tried before random points."""
DIRECTIONS, NEARER = 30, 0.9
"""From the first start on, so many random directions are tried for one at this share of its
distance."""
FIRST_WIDTH = 0.05
"""A bisection looks first so close to where it begins, as a share of the whole way."""
ROUNDING = 1e-6
"""A bisection that has come so far, as a share of the whole way, ends: the rest is rounding."""


class Decisions:
    """The answers of a model about images x (N, C, H, W): which of them fool it, and no more.

    `left` (N,) are the queries that each image has left; an image that `watch` drops has none.
    `nearest` keeps the smallest adversarial image of each.
    """

    def __init__(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        ball: Ball,
        watch: Watch,
        target: Tensor | None,
        queries: int,
    ) -> None:
        self.model, self.x, self.ball, self.watch = model, x, ball, watch
        self.nearest = Nearest(x, y, ball, target)
        self.left = torch.full((len(x),), queries, dtype=torch.int64, device=x.device)

    def ask(self, rows: Tensor, z: Tensor) -> Tensor:
        """(n,) which of the images z of `rows` fool the model. An image may occur several times, but
        not more often than it has queries left."""
        if not len(rows):
            return torch.zeros(0, dtype=torch.bool, device=rows.device)
        logits = batched_mean_logits(self.model, z)
        keep = self.watch(rows, z, logits)
        self.left.scatter_add_(0, rows, -torch.ones_like(rows))
        fooled = self.nearest.see(rows, z, logits)
        self.left[rows[~keep]] = 0
        return fooled

    def asking(self, rows: Tensor) -> Tensor:
        """Those of the images `rows` that have queries left."""
        return rows[self.left[rows] > 0]

    def started(self, draws: Draws, given: Tensor | None, tries: int) -> Tensor:
        """(m,) the images of which a point that fools the model is in `nearest`, and that have queries
        left.

        An image that fools the model itself is done, and so is one whose radius is 0. A `given`
        (N, C, H, W) start and images beyond it come first, then up to `tries` random points of the
        box, and then random directions at a part of the distance.
        """
        everything = torch.arange(len(self.x), device=self.x.device)
        self.ask(self.asking(everything), self.x)
        self.left[(self.nearest.size == 0) | (self.ball.radius(self.x).flatten() == 0)] = 0

        def missing() -> Tensor:
            return self.asking(everything[self.nearest.size.isinf()])

        if given is not None:
            for stretch in STRETCHES:
                rows = missing()
                origin = self.x[rows]
                self.ask(rows, (origin + stretch * (given[rows] - origin)).clamp(0, 1))
        for index in range(tries):
            if not len(rows := missing()):
                break
            self.ask(rows, random_point(self.x[rows], draws.fork(0, index).select(rows), index))
        found = everything[self.nearest.size.isfinite()]
        for index in range(DIRECTIONS):
            if not len(rows := self.asking(found)):
                break
            far = random_point(self.x[rows], draws.fork(1, index).select(rows), index)
            tiny = torch.finfo(far.dtype).tiny
            length = self.ball.size(far - self.x[rows]).clamp_min(tiny)
            share = (NEARER * self.nearest.size[rows] / length).clamp_max(1)
            self.ask(rows, self._toward(rows, far, share))
        return self.asking(found)

    def bisected(self, rows: Tensor, z: Tensor, tolerance: float) -> Tensor:
        """Adversarial images z of `rows` (n,), moved towards their images until the boundary is at
        most the share `tolerance` of the way behind. An image without queries stays where it is.

        Most are near the boundary already, so the bracket grows from z until it holds the boundary.
        """
        high = torch.ones(len(rows), dtype=z.dtype, device=z.device)
        low, width = torch.zeros_like(high), torch.full_like(high, FIRST_WIDTH)
        grows = torch.ones_like(rows, dtype=torch.bool)
        while True:
            wide = (high - low > (tolerance * high).clamp_min(ROUNDING)) & (self.left[rows] > 0)
            at = wide.nonzero().flatten()
            if not len(at):
                return torch.where((high == 1).reshape(-1, 1, 1, 1), z, self._toward(rows, z, high))
            middle = torch.where(grows, high * (1 - width), (low + high) / 2)[at]
            fooled = self.ask(rows[at], self._toward(rows[at], z[at], middle))
            low[at], high[at] = torch.where(fooled, low[at], middle), torch.where(fooled, middle, high[at])
            width[at] = (2 * width[at]).clamp_max(0.5)
            grows[at] &= fooled

    def _toward(self, rows: Tensor, z: Tensor, share: Tensor) -> Tensor:
        """Images between those of `rows` and z, at this share (n,) of the size of the whole way: on
        the line in l2; in linf with every pixel moved as far as that allows."""
        origin, part = self.x[rows], share.reshape(-1, 1, 1, 1)
        delta = z - origin
        if self.ball.norm == "linf":
            reach = part * self.ball.size(delta).reshape(part.shape)
            return (origin + delta.clamp(-reach, reach)).clamp(0, 1)
        return (origin + part * delta).clamp(0, 1)
