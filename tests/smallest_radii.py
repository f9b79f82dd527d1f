"""The smallest radii of images in closed form, or by a linear or least-distance program, inside the
box [0, 1]."""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.optimize import linprog, nnls
from torch import Tensor

from stresslens.core.ball import Norm

HALVINGS = 60


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
