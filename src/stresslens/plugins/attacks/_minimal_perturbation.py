"""What attacks of smallest perturbation keep."""

from __future__ import annotations

import torch
from torch import Tensor

from stresslens.core.attack_base import Best
from stresslens.core.ball import ABSOLUTE, RELATIVE, Ball


class Smallest:
    """The smallest adversarial of each image, and the best iterate inside the ball for those that
    have none there.

    x (N, C, H, W); y and target (N,). `found` and `size` (N,) are of any size, infinite where there
    is none yet."""

    def __init__(self, x: Tensor, y: Tensor, ball: Ball, target: Tensor | None) -> None:
        self.x, self.y, self.ball, self.target, self.best = x, y, ball, target, Best(x, y, target)
        self.found, self.size = x.clone(), torch.full((len(x),), torch.inf, dtype=x.dtype, device=x.device)
        self.reach = ball.radius(x).flatten() * (1 + RELATIVE) + ABSOLUTE

    def see(self, rows: Tensor, z: Tensor, logits: Tensor) -> Tensor:
        """(n,) which iterates fool the model; `rows` may name an image several times."""
        guess = logits.argmax(1)
        fooled = guess != self.y[rows] if self.target is None else guess == self.target[rows]
        fooled &= logits.isfinite().all(1)
        size = self.ball.size(z - self.x[rows])
        inside = size <= self.reach[rows]
        self.best.update(rows[inside], z[inside], logits[inside])
        now = torch.where(fooled, size, torch.inf)
        lowest = self.size.scatter_reduce(0, rows, now, "amin")
        better = (now < self.size[rows]) & (now == lowest[rows])
        self.found[rows[better]] = z[better]
        self.size = lowest
        return fooled

    def x_adv(self) -> Tensor:
        inside = self.size <= self.reach
        return torch.where(inside.reshape(-1, 1, 1, 1), self.found, self.best.x_adv)
