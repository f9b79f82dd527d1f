"""Small grey pictures seen through small movements: shifted, scaled, turned, and aligned with another.

Two pictures are aligned by Gauss-Newton steps (Lucas & Kanade 1981; inverse compositional, Baker &
Matthews 2004).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

SIDE, FINE = 32, 16
"""Sides of the small pictures, and of those that are aligned."""
ALIGNMENT_STEPS = 4
FARTHEST = 0.3
"""Largest shift (in half widths), scale (1.3) and turn (in radians) of an alignment."""


def similarity(scale: float = 1.0, turn: float = 0.0, right: float = 0.0, down: float = 0.0) -> Tensor:
    """One affine map (1, 2, 3)."""
    return torch.tensor([[[scale, turn, right], [-turn, scale, down]]])


STEP = 1 / 16
"""Half the difference between the two pictures of a derivative: shift in half widths, turn in
radians, scale."""
MOVEMENTS: Sequence[tuple[Tensor, Tensor]] = (
    (similarity(right=STEP), similarity(right=-STEP)),
    (similarity(down=STEP), similarity(down=-STEP)),
    (similarity(scale=1 + STEP), similarity(scale=1 - STEP)),
    (similarity(turn=STEP), similarity(turn=-STEP)),
)


def moved(x: Tensor, matrices: Tensor, side: int) -> Tensor:
    """(N, 1, side, side) pictures: x (N, 1, H, W) seen through affine maps (N or 1, 2, 3)."""
    if not len(x):
        return x.new_empty(0, 1, side, side)
    at = (torch.arange(side) + 0.5) / side * 2 - 1
    columns, rows, shift = matrices.unbind(2)  # (N, 2) each
    along = columns[:, None] * at[:, None] + shift[:, None]  # (N, side, 2)
    grid = along[:, None] + rows[:, None, None] * at[:, None, None]  # as F.affine_grid, without its products
    return F.grid_sample(x, grid.expand(len(x), -1, -1, -1), padding_mode="border", align_corners=False)


def shrunk(x: Tensor, side: int) -> Tensor:
    """(N, 1, side, side) pictures of pictures (N, 1, H, W), without aliasing."""
    return F.interpolate(x, (side, side), mode="bilinear", antialias=True)


def soft(x: Tensor) -> Tensor:
    """Pictures (N, 1, 32, 32) so blurred that 16×16 samples of them show no aliasing."""
    x = F.pad(x, (1, 1, 1, 1), "replicate")
    x = (x[:, :, :-2] + x[:, :, 2:]).mul_(0.25).add_(x[:, :, 1:-1], alpha=0.5)
    return (x[..., :-2] + x[..., 2:]).mul_(0.25).add_(x[..., 1:-1], alpha=0.5)


def _weights(side: int) -> Tensor:
    """(side²,) weights of the pixels: 1 within the circle that the sides touch, 0 in the corners,
    which turned pictures lack."""
    c = (torch.arange(side) + 0.5) / side * 2 - 1
    return ((1.05 - torch.hypot(c[:, None], c[None])) / 0.25).clamp(0, 1).flatten()


def centred(x: Tensor) -> Tensor:
    """Pictures (…, side²) without their weighted mean, multiplied by the roots of the weights:
    dot products of two are weighted covariances."""
    w = _weights(math.isqrt(x.shape[-1]))
    return (x - (x * w).sum(-1, keepdim=True) / w.sum()) * w.sqrt()


def unit(x: Tensor) -> Tensor:
    """`centred` pictures (N, 1, side, side) of length 1: dot products are correlations."""
    return F.normalize(centred(x.flatten(1)), dim=1)


def derivatives(x: Tensor, shrink: Callable[[Tensor], Tensor]) -> Tensor:
    """(N, 5, side²): pictures x (N, 1, H, W) and their derivatives by the `MOVEMENTS`, shrunk to
    one side, centred."""
    rows = [shrink(x)]
    for forth, back in MOVEMENTS:
        ahead, behind = (moved(x, matrix, x.shape[3]) for matrix in (forth, back))
        rows.append(shrink((ahead - behind) / 2))
    return centred(torch.stack([row.flatten(1) for row in rows], 1))


def fine(softened: Tensor) -> Tensor:
    """(N, 1, 16, 16) samples of pictures (N, 1, 32, 32) that `soft` has blurred. A sample lies between
    four pixels, so it is their mean."""
    rows = softened[:, :, ::2] + softened[:, :, 1::2]
    return (rows[..., ::2] + rows[..., 1::2]).mul_(0.25)


def inverse(maps: Tensor) -> Tensor:
    """The affine maps (N, 2, 3) that undo affine maps (N, 2, 3)."""
    last = torch.tensor([[[0.0, 0.0, 1.0]]]).expand(len(maps), -1, -1)
    inverse: Tensor = torch.linalg.inv(torch.cat([maps, last], 1))
    return inverse[:, :2]


def aligned(span: Tensor, softened: Tensor) -> tuple[Tensor, Tensor]:
    """Correlations (P,) of 16×16 pictures after alignment, and the affine maps (P, 2, 3) to see
    `softened` (P, 1, 32, 32) through. `span` (P, 5, 256) has the other picture and its derivatives."""
    n = len(softened)
    gram = span @ span.transpose(1, 2) + 1e-6 * torch.eye(5)
    template = F.normalize(span[:, 0], dim=1)
    matrices = torch.eye(3).repeat(n, 1, 1)
    best, best_matrices = torch.full((n,), -1.0), matrices[:, :2].clone()
    for step in range(ALIGNMENT_STEPS + 1):
        picture = moved(softened, matrices[:, :2], FINE) if step else fine(softened)
        seen = centred(picture.flatten(1))
        correlation = (template * F.normalize(seen, dim=1)).sum(1)
        near = (matrices[:, :2] - similarity()).abs().amax((1, 2)) <= FARTHEST
        better = near & (correlation > best)
        best = torch.where(better, correlation, best)
        best_matrices[better] = matrices[better, :2]
        if step < ALIGNMENT_STEPS:
            amounts = torch.linalg.solve(gram, span @ seen[..., None])[..., 0]
            right, down, scale, turn = (
                (STEP * amounts[:, 1:] / amounts[:, :1].clamp(min=0.2)).clamp(-0.12, 0.12).T
            )
            move = torch.eye(3).repeat(n, 1, 1)
            move[:, 0, 0] = move[:, 1, 1] = 1 + scale
            move[:, 0, 1], move[:, 1, 0] = turn, -turn
            move[:, 0, 2], move[:, 1, 2] = right, down
            matrices = matrices @ torch.linalg.inv(move)
    return best, best_matrices
