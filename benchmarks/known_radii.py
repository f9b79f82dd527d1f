"""Do the protocols break what can be broken? Models whose smallest radii are known, attacked.

    python benchmarks/known_radii.py               # the table of docs/results.md; 20 minutes, most for Square
    python benchmarks/known_radii.py fast l1       # one protocol, one norm
    python benchmarks/known_radii.py radial        # the models whose name contains the word

An image counts as breakable if its smallest radius, the box [0, 1] included, is at most the
attacked radius divided by `MARGIN`. The smallest radius comes from a closed form, a linear program
(linf, l1) or a least-distance program (l2); where it says so, from an adversarial image that was
constructed. The table shows how many breakable images a protocol leaves standing: 0 is wanted.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.optimize import linprog, nnls
from torch import Tensor, nn

import stresslens as sl
from stresslens.core.ball import Norm
from stresslens.metrics.intervals import wilson

SIDE = 8
N = 60
MARGIN = 1.05
NORMS: tuple[Norm, ...] = ("linf", "l2", "l1")
PROTOCOLS = ("fast", "standard")
GAINS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
HALVINGS = 60


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


# ---- smallest radii


def to_plane(x: Tensor, slope: Tensor, gap: Tensor, norm: Norm) -> Tensor:
    """(n,) min ‖δ‖ such that slope·δ = gap > 0 and x + δ in [0, 1]; x, slope (n, D), gap (n,)."""
    steep, room = slope.abs(), torch.where(slope > 0, 1 - x, x)
    reachable = (steep * room).sum(1) > gap
    if norm == "l1":
        steep, order = steep.sort(1, descending=True)
        room = room.gather(1, order)
        gained = (steep * room).cumsum(1)
        moved = ((gap[:, None] - (gained - steep * room)).clamp_min(0) / steep.clamp_min(1e-300)).minimum(
            room
        )
        size = moved.sum(1)
    else:
        wish = torch.ones_like(steep) if norm == "linf" else steep
        low, high = torch.zeros_like(gap), torch.full_like(gap, 1e6)
        for _ in range(2 * HALVINGS):
            middle = (low + high) / 2
            beyond = (steep * (middle[:, None] * wish).minimum(room)).sum(1) > gap
            low, high = torch.where(beyond, low, middle), torch.where(beyond, middle, high)
        moved = (high[:, None] * wish).minimum(room)
        size = moved.amax(1) if norm == "linf" else moved.norm(dim=1)
    return torch.where(reachable, size, math.inf)


def to_polyhedron(x: Tensor, rows: Tensor, least: Tensor, norm: Norm) -> float:
    """min ‖δ‖ such that rows·(x + δ) ≥ least and x + δ in [0, 1]; x (D,), rows (m, D), least (m,).

    In linf and l1 it is a linear program, in l2 a least-distance program (Lawson & Hanson 1974,
    chapter 23), solved through non-negative least squares.
    """
    a, need, d = rows.numpy(), (least - rows @ x).numpy(), len(x)
    low, high = -x.numpy(), (1 - x).numpy()
    if norm == "l2":
        g = np.concatenate([a, np.eye(d), -np.eye(d)])
        h = np.concatenate([need, low, -high])
        matrix = np.vstack([g.T, h])
        wanted = np.zeros(d + 1)
        wanted[-1] = 1
        u, _ = nnls(matrix, wanted, maxiter=100 * d)
        rest = matrix @ u - wanted
        return math.inf if abs(rest[-1]) < 1e-10 else float(np.linalg.norm(rest[:-1] / rest[-1]))
    if norm == "linf":  # the variables are δ and its size
        bound = np.hstack([np.vstack([np.eye(d), -np.eye(d)]), -np.ones((2 * d, 1))])
        found = linprog(
            np.eye(d + 1)[-1],
            np.vstack([np.hstack([-a, np.zeros((len(a), 1))]), bound]),
            np.concatenate([-need, np.zeros(2 * d)]),
            bounds=[*zip(low, high), (0, None)],
        )
    else:  # the positive and the negative part of δ
        found = linprog(
            np.ones(2 * d), np.hstack([-a, a]), -need, bounds=[(0, top) for top in (*high, *-low)]
        )
    return float(found.fun) if found.status == 0 else math.inf


def to_any(x: Tensor, polyhedra: list[list[tuple[Tensor, Tensor]]], norm: Norm) -> Tensor:
    """(n,) the smallest of the distances of each image to its polyhedra."""
    return torch.tensor(
        [min(to_polyhedron(x[i], *pair, norm) for pair in own) for i, own in enumerate(polyhedra)],
        dtype=torch.float64,
    )


def into_sphere(x: Tensor, centre: Tensor, radius: float, norm: Norm) -> Tensor:
    """(n,) the distance of images (n, D) outside a sphere from it, in closed form: the centre is in
    the box, so the box is never in the way."""
    away = (x - centre).abs()
    if norm == "l2":
        return away.norm(dim=1) - radius
    low, high = torch.zeros(len(x), dtype=x.dtype), away.amax(1)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        # linf moves every pixel by `middle`; l1 cuts every pixel down to `middle`
        left = (away - middle[:, None]).clamp_min(0) if norm == "linf" else away.minimum(middle[:, None])
        inside = left.norm(dim=1) < radius
        if norm == "linf":
            low, high = torch.where(inside, low, middle), torch.where(inside, middle, high)
        else:
            low, high = torch.where(inside, middle, low), torch.where(inside, high, middle)
    return high if norm == "linf" else (away - low[:, None]).clamp_min(0).sum(1)


def out_of_sphere(x: Tensor, centre: Tensor, radius: float, norm: Norm) -> Tensor:
    """(n,) the distance of images (n, D) inside a sphere to an image outside it.

    In linf it is the smallest. In l2 it belongs to the image on the ray from the centre, cut off at
    the box; in l1 to the image that moves the pixels farthest from the centre to the box first.
    """
    away = x - centre
    up = torch.where(away >= 0, 1.0, -1.0)
    if norm == "linf":  # a pixel may gain more on its other side, where it has more room
        rooms = (1 - x, x)
    else:
        rooms = (torch.where(up > 0, 1 - x, x),) * 2
    if norm == "l1":
        order = away.abs().argsort(1, descending=True)
        length, room = away.abs().gather(1, order), rooms[0].gather(1, order)
        gain = ((length + room).square() - length.square()).cumsum(1)
        need = radius**2 - away.square().sum(1, keepdim=True)
        left = (need - gain + (length + room).square() - length.square()).clamp_min(0)
        moved = ((left + length.square()).sqrt() - length).minimum(room)
        return torch.where(gain[:, -1:] > need, moved.sum(1, keepdim=True), math.inf).squeeze(1)
    low, high = torch.zeros(len(x), dtype=x.dtype), torch.full((len(x),), 1e3, dtype=x.dtype)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        if norm == "linf":
            reached = [away + middle[:, None].minimum(rooms[0]), away - middle[:, None].minimum(rooms[1])]
            far = torch.maximum(reached[0].abs(), reached[1].abs()).norm(dim=1) > radius
        else:
            far = (away + up * (middle[:, None] * away.abs()).minimum(rooms[0])).norm(dim=1) > radius
        low, high = torch.where(far, low, middle), torch.where(far, middle, high)
    size = high if norm == "linf" else (high[:, None] * away.abs()).minimum(rooms[0]).norm(dim=1)
    return torch.where(high < 999, size, math.inf)


# ---- models


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
        self.register_buffer("centre", centre.float())
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


# ---- cases


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
    return Case(name, wrap(Sphere(centre, radius)), x, y, lambda norm: way(flat, centre, radius, norm))


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


def main(words: list[str]) -> None:
    protocols = [name for name in PROTOCOLS if name in words] or list(PROTOCOLS)
    norms = [norm for norm in NORMS if norm in words] or list(NORMS)
    names = [word for word in words if word not in (*PROTOCOLS, *NORMS)]
    print(f"| model | {' | '.join(f'{norm}: {name}' for norm in norms for name in protocols)} |")
    print(f"|---|{'--:|' * len(protocols) * len(norms)}")
    began, total = time.perf_counter(), dict.fromkeys(protocols, (0, 0))
    for make in CASES:
        case = make(N)
        if names and not any(word in case.name for word in names):
            continue
        cells = []
        for norm in norms:
            left, n = standing(case, norm, protocols)
            cells += [f"{count} of {n}" for count in left]
            total |= {p: (total[p][0] + k, total[p][1] + n) for p, k in zip(protocols, left)}
        print(f"| {case.name} | {' | '.join(cells)} |", flush=True)
    for protocol, (left_standing, n) in total.items():
        share = wilson(left_standing, n)
        print(f"{protocol}: {left_standing} of {n:,} ({100 * share.low:.2f} to {100 * share.high:.2f} %)")
    print(f"{(time.perf_counter() - began) / 60:.1f} minutes")


if __name__ == "__main__":
    main(sys.argv[1:])
