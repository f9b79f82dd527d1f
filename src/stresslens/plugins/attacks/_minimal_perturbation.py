"""Shared state of minimum-norm attacks (DeepFool, FAB, Carlini-Wagner, HopSkipJump, Boundary)."""

from __future__ import annotations

import torch
from torch import Tensor

from stresslens.core.answers import predicted
from stresslens.core.attack_base import Best
from stresslens.core.ball import ABSOLUTE, RELATIVE, Ball


class Nearest:
    """The smallest adversarial image of each image, found by the predicted classes alone.

    x is (N, C, H, W); y and target are (N,). `found` (N, C, H, W) are the smallest adversarial
    images, inside the ball or not. `size` (N,) are the norms of their perturbations, infinite for
    images without an adversarial image so far.
    """

    def __init__(self, x: Tensor, y: Tensor, ball: Ball, target: Tensor | None) -> None:
        self.x, self.y, self.ball, self.target = x, y, ball, target
        self.found, self.size = x.clone(), torch.full((len(x),), torch.inf, dtype=x.dtype, device=x.device)
        self.reach = ball.radius(x).flatten() * (1 + RELATIVE) + ABSOLUTE

    def see(self, rows: Tensor, z: Tensor, logits: Tensor) -> Tensor:
        """Takes iterates z of the images `rows`; returns (n,) which of them fool the model.

        `rows` may contain an image several times.
        """
        answers = predicted(logits)
        fooled = answers != self.y[rows] if self.target is None else answers == self.target[rows]
        size = self.ball.size(z - self.x[rows])
        fooled &= size.isfinite()  # without an answer there is no next step: z is NaN after it
        self._compare(rows, z, logits, size)
        now = torch.where(fooled, size, torch.inf)
        lowest = self.size.scatter_reduce(0, rows, now, "amin")
        better = (now < self.size[rows]) & (now == lowest[rows])
        self.found[rows[better]] = z[better]
        self.size = lowest
        return fooled

    def _compare(self, rows: Tensor, z: Tensor, logits: Tensor, size: Tensor) -> None:
        """What else is kept of iterates z with perturbations of this size (n,)."""

    def x_adv(self) -> Tensor:
        """The smallest adversarial image, projected onto the ball; the image where there is none."""
        return torch.where(
            (self.size <= self.reach).reshape(-1, 1, 1, 1), self.found, self.ball.project(self.found, self.x)
        )


class Smallest(Nearest):
    """As `Nearest`, and the best iterate inside the ball, by the scores."""

    def __init__(self, x: Tensor, y: Tensor, ball: Ball, target: Tensor | None) -> None:
        super().__init__(x, y, ball, target)
        self.best = Best(x, y, target)

    def _compare(self, rows: Tensor, z: Tensor, logits: Tensor, size: Tensor) -> None:
        inside = size <= self.reach[rows]
        self.best.update(rows[inside], z[inside], logits[inside])

    def x_adv(self) -> Tensor:
        """The smallest adversarial image if it is inside the ball, or else the best iterate
        inside."""
        inside = self.size <= self.reach
        return torch.where(inside.reshape(-1, 1, 1, 1), self.found, self.best.x_adv)
