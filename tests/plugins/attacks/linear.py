"""Linear models, their lowest margins and smallest radii worked out another way than the attacks
do: by bisection, one image and one class after the other."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from stresslens.core.ball import Norm

HALVINGS = 200


def highest_rise(slope: Tensor, x: Tensor, eps: float, norm: Norm) -> Tensor:
    """(m,) max slope·δ over ‖δ‖ ≤ eps and x + δ in [0, 1]; slope, x (m, D)."""
    if norm == "l1":
        return torch.tensor(
            [_pixel_after_pixel(s, r, most=eps)[0] for s, r in zip(slope.abs(), _room(slope, x))],
            dtype=torch.float64,
        )
    size = torch.linalg.vector_norm if norm == "l2" else torch.amax

    def too_far(share: Tensor) -> Tensor:
        return size(_moved(slope, x, share, norm), dim=1) > eps

    return (slope.abs() * _moved(slope, x, _by_bisection(too_far, len(x)), norm)).sum(1)


def lowest_cost(slope: Tensor, x: Tensor, gap: Tensor, norm: Norm) -> Tensor:
    """(m,) min ‖δ‖ such that slope·δ = gap and x + δ in [0, 1]; infinite where the box holds no such δ."""
    room = _room(slope, x)
    if norm == "l1":
        cost = torch.tensor(
            [_pixel_after_pixel(s, r, rise=float(g))[1] for s, r, g in zip(slope.abs(), room, gap)],
            dtype=torch.float64,
        )
    else:

        def too_far(share: Tensor) -> Tensor:
            return (slope.abs() * _moved(slope, x, share, norm)).sum(1) > gap

        moved = _moved(slope, x, _by_bisection(too_far, len(x)), norm)
        cost = torch.linalg.vector_norm(moved, dim=1) if norm == "l2" else moved.amax(1)
    return torch.where((slope.abs() * room).sum(1) > gap, cost, math.inf)


def _room(slope: Tensor, x: Tensor) -> Tensor:
    return torch.where(slope > 0, 1 - x, x)


def _moved(slope: Tensor, x: Tensor, share: Tensor, norm: Norm) -> Tensor:
    """How far each pixel moves at this multiplier of the dual."""
    wish = share[:, None] * (slope.abs() if norm == "l2" else torch.ones_like(slope))
    return torch.minimum(wish, _room(slope, x))


def _by_bisection(too_far: Callable[[Tensor], Tensor], m: int) -> Tensor:
    low, high = torch.zeros(m, dtype=torch.float64), torch.full((m,), 1e6, dtype=torch.float64)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        over = too_far(middle)
        low, high = torch.where(over, low, middle), torch.where(over, middle, high)
    return low


def _pixel_after_pixel(
    steep: Tensor, room: Tensor, *, most: float = math.inf, rise: float = math.inf
) -> tuple[float, float]:
    """The steepest pixels first, until `most` is spent or the `rise` is reached: (risen, spent)."""
    risen = spent = 0.0
    for place in steep.argsort(descending=True).tolist():
        moved = min(most - spent, float(room[place]), (rise - risen) / float(steep[place]))
        risen, spent = risen + moved * float(steep[place]), spent + moved
    return risen, spent


@dataclass(frozen=True)
class Linear:
    """n images around the boundary of a linear model of K classes; with `tight`, many of their
    pixels are black or white."""

    model: nn.Module
    x: Tensor
    y: Tensor

    @staticmethod
    def of(classes: int, *, tight: bool, n: int = 8) -> Linear:
        random = torch.Generator().manual_seed(classes)
        x = torch.rand(n, 1, 6, 6, generator=random, dtype=torch.float64)
        x = (1.6 * x - 0.3).clamp(0, 1) if tight else 0.45 + 0.1 * x
        layer = nn.Linear(36, classes).double()
        with torch.no_grad():
            layer.weight.copy_(torch.randn(classes, 36, generator=random, dtype=torch.float64))
            model = nn.Sequential(nn.Flatten(), layer)
            layer.bias.copy_(-model(x).mean(0))
            y = model(x).argmax(1)
        return Linear(model, x, y)

    def _pairs(self) -> tuple[Tensor, Tensor, Tensor]:
        """For every image and other class: how far the answer lies above it, its slope over the
        answer, and the image's pixels."""
        layer = self.model[1]
        assert isinstance(layer, nn.Linear)
        z, weight = self.model(self.x).detach(), layer.weight.detach()
        pairs = [(i, int(own), k) for i, own in enumerate(self.y) for k in range(z.shape[1]) if k != int(own)]
        image, own, other = torch.tensor(pairs).T
        return z[image, own] - z[image, other], weight[other] - weight[own], self.x.flatten(1)[image]

    def lowest_margins(self, eps: float, norm: Norm) -> Tensor:
        gap, slope, x = self._pairs()
        return (gap - highest_rise(slope, x, eps, norm)).reshape(len(self.x), -1).amin(1)

    def smallest_radii(self, norm: Norm) -> Tensor:
        """Infinite where no image of the box fools the model."""
        gap, slope, x = self._pairs()
        return lowest_cost(slope, x, gap, norm).reshape(len(self.x), -1).amin(1)
