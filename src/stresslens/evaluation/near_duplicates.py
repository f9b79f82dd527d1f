"""Duplicate images: exact by the pixels' digests, near by comparing every pair of images.

Two images are near duplicates if one becomes the other by a small movement: mirrored or not,
shifted, scaled (cropped and enlarged) and turned. The search is complete for its rule: there is no
index that could lose a pair.

1. A coarse picture of one image (8×8) is compared with the space that a coarse picture of the
   other and its derivatives by shift, scale and rotation span (tangent distance; Simard, LeCun &
   Denker 1993). This is one matrix product for all pairs.
2. Pairs above `COARSE_ALIKE` are aligned by Gauss-Newton steps (Lucas & Kanade 1981; inverse
   compositional, Baker & Matthews 2004) and compared at 16×16.
3. Their details (what a blurred picture lacks) are compared at 32×32. Without it, two pictures of
   a bright sky above a dark sea would be the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from io import BytesIO
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from stresslens.core.progress import advance

SIDE, FINE, COARSE = 32, 16, 8
"""Sides of the grey pictures in which details, aligned pictures and all pairs are compared."""
COARSE_ALIKE = 0.94
"""Least length of a coarse picture's projection on the other picture and its derivatives."""
ALIKE, DETAILS_ALIKE = 0.95, 0.93
"""Least correlation of near duplicates after alignment, and of their details. docs/results.md has
the share of true copies among the pairs found."""
ALIGNMENT_STEPS = 4
FARTHEST = 0.3
"""Largest shift (in half widths), scale (1.3) and turn (in radians) of an alignment."""
PARTNERS = 50
"""Each image is aligned with at most so many later images, the most similar by the first step."""

LOOK_ALIKE, STILL_ALIKE, MOST_LOOK_ALIKES = 0.85, 0.93, 0.005
"""Correlations (of 16×16 pictures that are not aligned) between which two images are look-alikes,
and the largest share of look-alikes among random pairs of one class with which near duplicates are
searched. The share is 0.0004 for photographs (CIFAR-10), but 0.03 (MNIST) and 0.16 (digits) for
handwriting, where copies cannot be distinguished from look-alikes."""
MOST_ALIKE = 0.1
"""Largest share of random pairs of one class that correlate by more than `STILL_ALIKE`. With a
camera that does not move all of them do."""

Pairs = NDArray[np.int64]
"""(P, 2) positions in all splits together, the smaller first."""


def small_pictures(grey: Tensor) -> NDArray[np.uint8]:
    """(N, 32, 32) pictures, darkest 0 and brightest 255, of grey images (N, 1, H, W)."""
    square = F.interpolate(grey, (SIDE, SIDE), mode="bilinear", antialias=True)[:, 0]
    low, high = square.amin((1, 2), keepdim=True), square.amax((1, 2), keepdim=True)
    return ((square - low) * (255 / (high - low).clamp(min=1e-6))).round().to(torch.uint8).numpy()


def exact_pairs(digests: NDArray[np.void], part: NDArray[np.int64]) -> Pairs:
    """Pairs of images with equal digests; `part` (N,) is the split of each image.

    Each image is paired with the first one that has its pixels, and with the first such of its own
    split.
    """
    _, group = np.unique(digests, return_inverse=True)
    _, group_in_split = np.unique(np.stack([group, part]), axis=1, return_inverse=True)
    positions = np.arange(len(digests))
    pairs = []
    for groups in (group, group_in_split):
        first = np.full(groups.max() + 1, len(digests))
        np.minimum.at(first, groups, positions)
        pairs.append(np.stack([first[groups], positions], 1)[first[groups] != positions])
    return np.unique(np.concatenate(pairs), axis=0)


def near_pairs(small: NDArray[np.uint8], exact: Pairs, what: str = "comparing pairs") -> Pairs:
    """Pairs of near duplicates among the small pictures, without exact duplicates.

    Of exact duplicates only the first one takes part. Constant images take no part.
    """
    varied = np.setdiff1d(np.flatnonzero(np.ptp(small, axis=(1, 2))), exact[:, 1])
    coarse = torch.cat([_coarse(_floats(small, rows)) for rows in _pieces(varied, 4096)] or [torch.empty(0)])
    mirror = torch.cat([_coarse(_floats(small, rows).flip(3)) for rows in _pieces(varied, 4096)] or [coarse])
    found: list[Pairs] = []
    for rows in _pieces(np.arange(len(varied)), 256):
        pictures, start = _floats(small, varied[rows]), int(rows[0])
        i, j, mirrored = _candidates(pictures, start, coarse, mirror)
        if len(i):
            alike = _are_copies(pictures, i - start, small, varied[j.numpy()], mirrored)
            found.append(np.sort(varied[np.stack([i.numpy(), j.numpy()], 1)[alike]], 1))
        advance(what, int(rows[-1]) + 1, len(varied))
    return np.unique(np.concatenate([np.empty((0, 2), np.int64), *found]), axis=0)


def copies_are_distinguishable(small: NDArray[np.uint8], labels: NDArray[np.int64]) -> bool:
    """Whether images of one class differ so much that two similar ones must be copies.

    This is estimated from 200,000 random pairs of one class.
    """
    random = np.random.default_rng(0)
    order = random.permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    thumbnails = np.concatenate([_thumbnails(_floats(small, rows)) for rows in _pieces(order, 4096)])
    labels = labels[order]
    look_alikes = copies = pairs = 0
    for shift in range(1, 1 + max(1, 200_000 // len(labels))):
        same = labels[shift:] == labels[:-shift]
        correlation = np.einsum("nd,nd->n", thumbnails[shift:][same], thumbnails[:-shift][same])
        look_alikes += int(((correlation >= LOOK_ALIKE) & (correlation < STILL_ALIKE)).sum())
        copies += int((correlation >= STILL_ALIKE).sum())
        pairs += int(same.sum())
    return look_alikes <= MOST_LOOK_ALIKES * pairs and copies <= MOST_ALIKE * pairs


class Planted(NamedTuple):
    """How many of `n` planted copies of one kind were found."""

    kind: str
    found: int
    n: int


def planted_copies(grey: Tensor) -> list[Planted]:
    """How many copies of grey images (N, 1, H, W) in [0, 1] are found, for each kind of copy.

    Images of one colour have no copies of their own. Without other images the list is empty.
    """
    small = small_pictures(grey)
    varied = np.flatnonzero(np.ptp(small, axis=(1, 2)))
    if not len(varied):
        return []
    small, n, results = small[varied], len(varied), []
    for kind, change in COPIES.items():
        one, other = small, small_pictures(change(grey[varied]))
        copy_is_first = (np.arange(n) % 2 == 1)[:, None, None]
        one, other = np.where(copy_is_first, other, one), np.where(copy_is_first, one, other)
        pictures, others = _floats(one, np.arange(n)), _floats(other, np.arange(n))
        found = np.zeros(n, bool)
        for mirrored in (False, True):
            projection = _projection(pictures, _coarse(others.flip(3) if mirrored else others))
            rows = torch.nonzero(projection >= COARSE_ALIKE)[:, 0]
            flips = torch.full((len(rows),), mirrored)
            found[rows.numpy()] |= _are_copies(pictures, rows, other, rows.numpy(), flips)
        results.append(Planted(kind, int(found.sum()), n))
    return results


def _moved(x: Tensor, matrices: Tensor, side: int) -> Tensor:
    """(N, 1, side, side) pictures: x (N, 1, H, W) seen through affine maps (N or 1, 2, 3)."""
    if not len(x):
        return x.new_empty(0, 1, side, side)
    grid = F.affine_grid(matrices, [len(matrices), 1, side, side], align_corners=False)
    grid = grid.expand(len(x), -1, -1, -1)
    return F.grid_sample(x, grid, padding_mode="border", align_corners=False)


def _similarity(scale: float = 1.0, turn: float = 0.0, right: float = 0.0, down: float = 0.0) -> Tensor:
    """One affine map (1, 2, 3)."""
    return torch.tensor([[[scale, turn, right], [-turn, scale, down]]])


def _crop(x: Tensor, share: float) -> Tensor:
    """The middle of the pictures, enlarged to their size."""
    cut = [round(side * (1 - share) / 2) for side in x.shape[2:]]
    inner = x[:, :, cut[0] : x.shape[2] - cut[0], cut[1] : x.shape[3] - cut[1]]
    return F.interpolate(inner, x.shape[2:], mode="bicubic").clamp(0, 1)


def _turn(x: Tensor, degrees: float) -> Tensor:
    angle = math.radians(degrees)
    matrix = _similarity(math.cos(angle), math.sin(angle)).expand(len(x), -1, -1)
    grid = F.affine_grid(matrix, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, mode="bicubic", align_corners=False).clamp(0, 1)


def _saved_as_jpeg(x: Tensor, quality: int) -> Tensor:
    decoded = []
    for picture in (x[:, 0] * 255).round().to(torch.uint8).numpy():
        file = BytesIO()
        Image.fromarray(picture).save(file, "JPEG", quality=quality)
        decoded.append(np.asarray(Image.open(file)))
    return torch.from_numpy(np.stack(decoded))[:, None].float() / 255


COPIES: dict[str, Callable[[Tensor], Tensor]] = {
    "saved as JPEG of quality 50": partial(_saved_as_jpeg, quality=50),
    "halved and enlarged": lambda x: F.interpolate(
        F.interpolate(x, scale_factor=0.5, mode="bilinear", antialias=True), x.shape[2:], mode="bilinear"
    ),
    "mirrored": lambda x: x.flip(3),
    "shifted by 1/16": lambda x: x.roll(max(1, round(x.shape[3] / 16)), 3),
    "cropped to 7/8": partial(_crop, share=7 / 8),
    "turned by 5 degrees": partial(_turn, degrees=5),
}
"""Kinds of copies whose share found is measured. x (N, 1, H, W) in [0, 1] becomes the same shape."""


STEP = 1 / 16
"""Half the difference between the two pictures of a derivative: shift in half widths, turn in
radians, scale."""
MOVEMENTS: Sequence[tuple[Tensor, Tensor]] = (
    (_similarity(right=STEP), _similarity(right=-STEP)),
    (_similarity(down=STEP), _similarity(down=-STEP)),
    (_similarity(scale=1 + STEP), _similarity(scale=1 - STEP)),
    (_similarity(turn=STEP), _similarity(turn=-STEP)),
)


def _floats(small: NDArray[np.uint8], rows: NDArray[np.int64]) -> Tensor:
    """(P, 1, 32, 32) pictures in [0, 1] of the positions `rows` (P,)."""
    return torch.from_numpy(small[rows])[:, None].float() / 255


def _pieces(rows: NDArray[np.int64], size: int) -> list[NDArray[np.int64]]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def _shrunk(x: Tensor, side: int) -> Tensor:
    return F.interpolate(x, (side, side), mode="bilinear", antialias=True)


def _soft(x: Tensor) -> Tensor:
    """Pictures (N, 1, 32, 32) so blurred that 16×16 samples of them show no aliasing."""
    x = F.pad(x, (1, 1, 1, 1), "replicate")
    x = (x[:, :, :-2] + x[:, :, 2:]) / 4 + x[:, :, 1:-1] / 2
    return (x[..., :-2] + x[..., 2:]) / 4 + x[..., 1:-1] / 2


def _weights(side: int) -> Tensor:
    """(side²,) weights of the pixels: 1 within the circle that the sides touch, 0 in the corners,
    which turned pictures lack."""
    c = (torch.arange(side) + 0.5) / side * 2 - 1
    return ((1.05 - torch.hypot(c[:, None], c[None])) / 0.25).clamp(0, 1).flatten()


def _centred(x: Tensor) -> Tensor:
    """Pictures (…, side²) without their weighted mean, multiplied by the roots of the weights:
    dot products of two are weighted covariances."""
    w = _weights(math.isqrt(x.shape[-1]))
    return (x - (x * w).sum(-1, keepdim=True) / w.sum()) * w.sqrt()


def _unit(x: Tensor) -> Tensor:
    """`_centred` pictures (N, 1, side, side) of length 1: dot products are correlations."""
    return F.normalize(_centred(x.flatten(1)), dim=1)


def _thumbnails(x: Tensor) -> NDArray[np.float32]:
    """(N, 256) pictures of 16×16, mean 0 and length 1."""
    flat = F.avg_pool2d(x, 2).flatten(1)
    return F.normalize(flat - flat.mean(1, keepdim=True)).numpy()


def _coarse(x: Tensor) -> Tensor:
    return _unit(_shrunk(x, COARSE))


def _derivatives(x: Tensor, shrink: Callable[[Tensor], Tensor]) -> Tensor:
    """(N, 5, side²): pictures x (N, 1, H, W) and their derivatives by the `MOVEMENTS`, shrunk to
    one side, centred."""
    rows = [shrink(x)]
    for forth, back in MOVEMENTS:
        ahead, behind = (_moved(x, matrix, x.shape[3]) for matrix in (forth, back))
        rows.append(shrink((ahead - behind) / 2))
    return _centred(torch.stack([row.flatten(1) for row in rows], 1))


def _basis(x: Tensor) -> Tensor:
    """(N, 5, 64) orthonormal bases of coarse pictures of x and their derivatives."""
    span = _derivatives(_shrunk(x, FINE), lambda picture: _shrunk(picture, COARSE))
    basis: Tensor = torch.linalg.qr(span.transpose(1, 2)).Q
    return basis.transpose(1, 2)


def _projection(x: Tensor, coarse: Tensor) -> Tensor:
    """(N,) lengths of coarse pictures (N, 64), projected on what x and its derivatives span."""
    lengths: Tensor = torch.linalg.vector_norm(torch.einsum("nkd,nd->nk", _basis(x), coarse), dim=1)
    return lengths


def _candidates(
    pictures: Tensor, start: int, coarse: Tensor, mirror: Tensor, columns: int = 8192
) -> tuple[Tensor, Tensor, Tensor]:
    """Pairs (i, j, whether j is mirrored) of pictures from position `start` on with later ones."""
    n = len(pictures)
    basis = _basis(pictures).transpose(0, 1).reshape(5 * n, -1)
    kept: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    for mirrored, others in ((False, coarse), (True, mirror)):
        for column in range(start, len(others), columns):
            squares = (basis @ others[column : column + columns].T).square_().view(5, n, -1).sum(0)
            i, j = torch.nonzero(squares >= COARSE_ALIKE**2, as_tuple=True)
            later = j + column > i + start
            i, j = i[later], j[later]
            kept.append(
                (i + start, j + column, torch.full_like(i, mirrored, dtype=torch.bool), squares[i, j])
            )
    i, j, flips, squares = (torch.cat(values) for values in zip(*kept))
    order = torch.argsort(squares, descending=True, stable=True)
    order = order[torch.argsort(i[order], stable=True)]
    first = torch.searchsorted(i[order], i[order])
    order = order[torch.arange(len(order)) - first < PARTNERS]
    return i[order], j[order], flips[order]


def _are_copies(
    pictures: Tensor, rows: Tensor, small: NDArray[np.uint8], others: NDArray[np.int64], mirrored: Tensor
) -> NDArray[np.bool_]:
    """(P,) whether picture `rows` (P,) of `pictures` (N, 1, 32, 32) and picture `others` (P,) of
    `small` are copies of each other; `mirrored` (P,) pictures of `small` are mirrored first."""
    span = _derivatives(_soft(pictures), _fine)
    alike = []
    for piece in torch.arange(len(rows)).split(2048):
        other = _floats(small, others[piece.numpy()])
        other = torch.where(mirrored[piece, None, None, None], other.flip(3), other)
        correlation, maps = _aligned(span[rows[piece]], _soft(other))
        near = torch.nonzero(correlation >= LOOK_ALIKE)[:, 0]
        one, other, maps = pictures[rows[piece[near]]], other[near], maps[near]
        copies = torch.zeros(len(piece), dtype=torch.bool)
        copies[near] = _same(one, _moved(other, maps, SIDE)) | _same(_moved(one, _inverse(maps), SIDE), other)
        alike.append(copies)
    return torch.cat([torch.empty(0, dtype=torch.bool), *alike]).numpy()


def _same(one: Tensor, other: Tensor) -> Tensor:
    """(N,) whether pictures (N, 1, 32, 32) show the same at the same places."""
    correlation = (_unit(_fine(_soft(one))) * _unit(_fine(_soft(other)))).sum(1)
    details = (_detail(one) * _detail(other)).sum(1)
    return (correlation >= ALIKE) & (details >= DETAILS_ALIKE)


def _fine(soft: Tensor) -> Tensor:
    return _moved(soft, _similarity(), FINE)


def _inverse(maps: Tensor) -> Tensor:
    """The affine maps (N, 2, 3) that undo affine maps (N, 2, 3)."""
    last = torch.tensor([[[0.0, 0.0, 1.0]]]).expand(len(maps), -1, -1)
    inverse: Tensor = torch.linalg.inv(torch.cat([maps, last], 1))
    return inverse[:, :2]


def _detail(x: Tensor) -> Tensor:
    """(N, 784) what pictures (N, 1, 32, 32) have beyond their coarse picture, of length 1.

    They are blurred first, so that a copy that was halved and enlarged keeps its details. At the
    margin a coarse picture is not known, so the margin is left out.
    """
    x = _soft(_soft(x))
    detail = x - F.interpolate(_shrunk(x, COARSE), (SIDE, SIDE), mode="bilinear")
    margin = SIDE // COARSE // 2
    return _unit(detail[:, :, margin:-margin, margin:-margin])


def _aligned(span: Tensor, soft: Tensor) -> tuple[Tensor, Tensor]:
    """Correlations (P,) of 16×16 pictures after alignment, and the affine maps (P, 2, 3) to see
    `soft` (P, 1, 32, 32) through. `span` (P, 5, 256) has the other picture and its derivatives."""
    n = len(soft)
    gram = span @ span.transpose(1, 2) + 1e-6 * torch.eye(5)
    template = F.normalize(span[:, 0], dim=1)
    matrices = torch.eye(3).repeat(n, 1, 1)
    best, best_matrices = torch.full((n,), -1.0), matrices[:, :2].clone()
    for step in range(ALIGNMENT_STEPS + 1):
        seen = _centred(_moved(soft, matrices[:, :2], FINE).flatten(1))
        correlation = (template * F.normalize(seen, dim=1)).sum(1)
        near = (matrices[:, :2] - _similarity()).abs().amax((1, 2)) <= FARTHEST
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
