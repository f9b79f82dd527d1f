"""Models whose smallest radii are known: planes, spheres, nearest centroids, and deep nets that
compute one of these."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from smallest_radii import into_sphere, out_of_sphere, to_any, to_plane
from torch import Tensor, nn

import stresslens as sl
from stresslens.core.ball import Norm

SIDE = 8
N = 60
MARGIN = 1.05
GAINS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)


@dataclass(frozen=True)
class Case:
    """A model, images (n, 1, s, s) with the classes that it gives them, and their smallest radii
    in a norm, (n,) float64; infinite where the box holds no image of another class."""

    name: str
    model: nn.Module
    x: Tensor
    y: Tensor
    smallest: Callable[[Norm], Tensor]


def images(seed: int, n: int = N, side: int = SIDE) -> Tensor:
    """Uniform pixels, more than a third of them black or white."""
    drawn = torch.rand(n, 1, side, side, generator=torch.Generator().manual_seed(seed))
    return (1.6 * drawn - 0.3).clamp(0, 1)


def normals(count: int, seed: int, side: int = SIDE) -> Tensor:
    """(count, D) unit vectors, float64."""
    drawn = torch.randn(
        count, side * side, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    return nn.functional.normalize(drawn)


class Planes(nn.Module):
    """Two classes: 0, and the largest of gain·(normal·x - offset)."""

    def __init__(self, normal: Tensor, offset: Tensor, gain: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", (normal * gain[:, None]).float())
        self.register_buffer("bias", (-offset * gain).float())

    def forward(self, x: Tensor) -> Tensor:
        highest = (x.flatten(1) @ self.weight.T + self.bias).amax(1)
        return torch.stack([torch.zeros_like(highest), highest], 1)


class DeadReLU(nn.Module):
    """A plane behind a ReLU that passes nothing on until an image is nearer than `depth`."""

    def __init__(self, normal: Tensor, offset: float, depth: float) -> None:
        super().__init__()
        self.register_buffer("weight", normal.float())
        self.offset, self.depth = offset, depth

    def forward(self, x: Tensor) -> Tensor:
        height = (x.flatten(1) @ self.weight - self.offset + self.depth).relu() - self.depth
        return torch.stack([torch.zeros_like(height), height], 1)


class Nearest(nn.Module):
    """The class of the nearest centre; a logit is minus the squared distance to the class's
    nearest."""

    def __init__(self, centres: Tensor, classes: int) -> None:
        super().__init__()
        self.register_buffer("centres", centres.float())
        self.classes = classes

    def forward(self, x: Tensor) -> Tensor:
        square = (x.flatten(1)[:, None] - self.centres).square().sum(2)
        return -square.reshape(len(x), -1, self.classes).amin(1)


class Sphere(nn.Module):
    """Class 1 inside a sphere; the logit is r² - the squared distance from its centre."""

    def __init__(self, centre: Tensor, radius: float) -> None:
        super().__init__()
        self.register_buffer("centre", centre)
        self.radius = radius

    def forward(self, x: Tensor) -> Tensor:
        height = self.radius**2 - (x.flatten(1) - self.centre).square().sum(1)
        return torch.stack([torch.zeros_like(height), height], 1)


class Rotations(nn.Module):
    """Turns the pixels, layer after layer, and turns them back: ReLU(z) - ReLU(-z) is z."""

    def __init__(self, layers: int, seed: int, side: int = SIDE) -> None:
        super().__init__()
        random, d = torch.Generator().manual_seed(seed), side * side
        turns = [
            torch.linalg.qr(torch.randn(d, d, generator=random, dtype=torch.float64))[0]
            for _ in range(layers)
        ]
        back = torch.linalg.multi_dot([*turns, torch.eye(d, dtype=torch.float64)]).T
        self.turns = nn.ParameterList(turn.float() for turn in (*turns[::-1], back))

    def forward(self, x: Tensor) -> Tensor:
        z = x.flatten(1)
        for turn in self.turns:
            z = z @ turn.T
            z = z.relu() - (-z).relu()
        return z.reshape(x.shape)


class Monotone(nn.Module):
    """A deep increasing function of the difference of two logits that keeps its sign."""

    def __init__(self, layers: int, slope: float) -> None:
        super().__init__()
        self.layers, self.slope = layers, slope

    def forward(self, logits: Tensor) -> Tensor:
        height = logits[:, 1] - logits[:, 0]
        for _ in range(self.layers):
            height = 0.3 * height + torch.tanh(self.slope * height)
        return torch.stack([-height, height], 1)


def linear(n: int = N) -> Case:
    x, weight = images(1, n), normals(5, 11)
    flat = x.flatten(1).double()
    bias = -(flat @ weight.T).mean(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(flat.shape[1], 5))
    with torch.no_grad():
        model[1].weight.copy_(weight)
        model[1].bias.copy_(bias)
    scores = flat @ weight.T + bias
    y = scores.argmax(1)

    def smallest(norm: Norm) -> Tensor:
        gaps = scores.gather(1, y[:, None]) - scores
        ways = [
            to_plane(flat, weight[k] - weight[y], gaps[:, k], norm).masked_fill(y == k, math.inf)
            for k in range(5)
        ]
        return torch.stack(ways).amin(0)

    return Case("linear, 5 classes", model, x, y, smallest)


def _planes(
    name: str, wrap: Callable[[nn.Module], nn.Module], gains: tuple[float, ...], n: int, seed: int
) -> Case:
    x, normal = images(seed, n), normals(len(gains), 10 + seed)
    flat = x.flatten(1).double()
    offset = (flat @ normal.T).quantile(0.9, dim=0)
    heights = flat @ normal.T - offset
    y = (heights > 0).any(1).long()

    def smallest(norm: Norm) -> Tensor:
        ways = torch.stack([to_plane(flat, a.expand_as(flat), -h, norm) for a, h in zip(normal, heights.T)])
        back = to_any(flat[y == 1], [[(-normal, -offset)]] * int(y.sum()), norm)
        return ways.amin(0).masked_scatter(y == 1, back)

    return Case(name, wrap(Planes(normal, offset, torch.tensor(gains, dtype=torch.float64))), x, y, smallest)


def equal_planes(n: int = N) -> Case:
    return _planes("six planes, equal gains", lambda planes: planes, (1.0,) * 6, n, 2)


def unequal_planes(n: int = N) -> Case:
    return _planes("six planes, gains 1 to 32", lambda planes: planes, GAINS, n, 2)


def deep_planes(n: int = N) -> Case:
    return _planes(
        "the same behind 6 layers", lambda planes: nn.Sequential(Rotations(6, 5), planes), GAINS, n, 2
    )


def _one_plane(name: str, make: Callable[[Tensor, float], nn.Module], n: int, seed: int) -> Case:
    x, normal = images(seed, n), normals(1, 10 + seed)[0]
    flat = x.flatten(1).double()
    offset = float((flat @ normal).quantile(0.5))
    heights = flat @ normal - offset
    y = (heights > 0).long()

    def smallest(norm: Norm) -> Tensor:
        return to_plane(flat, torch.where(heights > 0, -1.0, 1.0)[:, None] * normal, heights.abs(), norm)

    return Case(name, make(normal, offset), x, y, smallest)


def dead_relu(n: int = N) -> Case:
    return _one_plane("a plane behind a dead ReLU", lambda normal, at: DeadReLU(normal, at, 0.1), n, 3)


def deep_plane(n: int = N) -> Case:
    def deep(normal: Tensor, at: float) -> nn.Module:
        planes = Planes(normal[None], torch.tensor([at]).double(), torch.ones(1).double())
        return nn.Sequential(Rotations(8, 6), planes, Monotone(6, 3.0))

    return _one_plane("a plane computed by 15 layers", deep, n, 4)


def _sphere(name: str, wrap: Callable[[nn.Module], nn.Module], n: int, seed: int, *, inside: bool) -> Case:
    x = images(seed, n)
    flat = x.flatten(1).double()
    centre = 0.3 + 0.4 * torch.rand(
        flat.shape[1], generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    distance = (flat - centre).norm(dim=1)
    radius = float(distance.max() + 0.05 if inside else distance.min() - 0.05)
    y = torch.full((n,), int(inside))
    way = out_of_sphere if inside else into_sphere
    return Case(
        name, wrap(Sphere(centre.float(), radius)), x, y, lambda norm: way(flat, centre, radius, norm)
    )


def into_ball(n: int = N) -> Case:
    return _sphere("radial, from outside", lambda sphere: sphere, n, 6, inside=False)


def out_of_ball(n: int = N) -> Case:
    return _sphere("radial, from inside", lambda sphere: sphere, n, 7, inside=True)


def deep_ball(n: int = N) -> Case:
    def deep(sphere: nn.Module) -> nn.Module:
        return nn.Sequential(Rotations(6, 7), sphere, Monotone(4, 1.0))

    return _sphere("radial, behind 10 layers", deep, n, 8, inside=False)


def _centroids(name: str, each: int, classes: int, n: int, seed: int) -> Case:
    x, centres = images(seed, n), images(seed + 100, each * classes).flatten(1).double()
    flat = x.flatten(1).double()
    nearest = torch.cdist(flat, centres).argmin(1)
    y = nearest % classes
    of = torch.arange(len(centres)) % classes

    def smallest(norm: Norm) -> Tensor:
        regions = []
        for own in y:
            rivals = centres[of == own]
            regions.append(
                [(2 * (c - rivals), (c.square().sum() - rivals.square().sum(1))) for c in centres[of != own]]
            )
        return to_any(flat, regions, norm)

    return Case(name, Nearest(centres, classes), x, y, smallest)


def centroid(n: int = N) -> Case:
    return _centroids("nearest centroid, 10 classes", 1, 10, n, 9)


def many_centroids(n: int = N) -> Case:
    return _centroids("nearest of 24 centroids, 4 classes", 6, 4, n, 10)


class LargestPlanes(nn.Module):
    """The logit of each class is its largest plane; weight (K, J, D), bias (K, J)."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight.float())
        self.register_buffer("bias", bias.float())

    def forward(self, x: Tensor) -> Tensor:
        return (torch.einsum("nd,kjd->nkj", x.flatten(1), self.weight) + self.bias).amax(2)


def planes_of_classes(n: int = N) -> Case:
    x, normal = images(12, n), normals(20, 13).reshape(5, 4, -1)
    flat, random = x.flatten(1).double(), torch.Generator().manual_seed(14)
    gains = torch.stack([torch.tensor(GAINS[:4])[torch.randperm(4, generator=random)] for _ in range(5)])
    weight = normal * gains[:, :, None]
    scores = torch.einsum("nd,kjd->nkj", flat, weight)
    bias = -scores.quantile(0.9, dim=0)
    y = (scores + bias).amax(2).argmax(1)

    def smallest(norm: Norm) -> Tensor:
        regions = [
            [
                (weight[k, j] - weight[own], bias[own] - bias[k, j])
                for k in range(5)
                if k != own
                for j in range(4)
            ]
            for own in y.tolist()
        ]
        return to_any(flat, regions, norm)

    return Case("5 classes, 4 planes each, gains 1 to 8", LargestPlanes(weight, bias), x, y, smallest)


CASES: tuple[Callable[[int], Case], ...] = (
    linear,
    equal_planes,
    unequal_planes,
    deep_planes,
    planes_of_classes,
    dead_relu,
    deep_plane,
    into_ball,
    out_of_ball,
    deep_ball,
    centroid,
    many_centroids,
)


def standing(case: Case, norm: Norm, protocols: Sequence[Any]) -> tuple[list[int], int]:
    """How many of the breakable images each protocol leaves standing, and how many are breakable,
    at `MARGIN` times the median of the smallest radii."""
    smallest = case.smallest(norm)
    eps = float(smallest.median()) * MARGIN
    breakable = (smallest <= eps / MARGIN).numpy()
    left = []
    for protocol in protocols:
        found = sl.attack(case.model, case.x, case.y, norm=norm, radii=[eps], protocol=protocol, audit=False)
        left.append(int((breakable & np.isinf(found.minimal_radius)).sum()))
    return left, int(breakable.sum())
