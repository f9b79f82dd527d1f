"""Duplicate images: exact by the pixels' digests, near by comparing every pair of images.

Two images are near duplicates if one becomes the other by a small movement: mirrored or not,
shifted, scaled (cropped and enlarged) and turned. All pairs are compared: there is no index that
could lose one. Only an image with more than `PARTNERS` look-alikes among the later ones may lose
pairs; docs/results.md has how many.

1. Coarse pictures (8×8) are compared, but for a small movement (`coarse_pairs`): all pairs.
2. Those that are alike are aligned (`picture_alignment`) and compared at 16×16.
3. Their details (what a blurred picture lacks) are compared at 32×32. Without it, two pictures of
   a bright sky above a dark sea would be the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable
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
from stresslens.evaluation.coarse_pairs import (
    COARSE,
    COARSE_ALIKE,
    candidates,
    coarse_pictures,
    projection,
    sieve_axes,
)
from stresslens.evaluation.picture_alignment import (
    SIDE,
    aligned,
    derivatives,
    fine,
    inverse,
    moved,
    shrunk,
    similarity,
    soft,
    unit,
)

ALIKE, DETAILS_ALIKE = 0.95, 0.93
"""Least correlation of near duplicates after alignment, and of their details. docs/results.md has
the share of true copies among the pairs found."""

BLOCK = 512
"""Images that are compared with all later ones at once."""

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
    if not len(varied):
        return np.empty((0, 2), np.int64)
    coarse = torch.cat([coarse_pictures(_floats(small, rows)) for rows in _pieces(varied, 4096)])
    axes = sieve_axes(coarse)
    found: list[Pairs] = []
    for rows in _pieces(np.arange(len(varied)), BLOCK):
        pictures, start = _floats(small, varied[rows]), int(rows[0])
        i, j, mirrored = candidates(pictures, start, coarse, axes)
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
    for shift in range(1, min(len(labels), 1 + max(1, 200_000 // len(labels)))):
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
            lengths = projection(pictures, coarse_pictures(others.flip(3) if mirrored else others))
            rows = torch.nonzero(lengths >= COARSE_ALIKE)[:, 0]
            flips = torch.full((len(rows),), mirrored)
            found[rows.numpy()] |= _are_copies(pictures, rows, other, rows.numpy(), flips)
        results.append(Planted(kind, int(found.sum()), n))
    return results


def _crop(x: Tensor, share: float) -> Tensor:
    """The middle of the pictures, enlarged to their size."""
    cut = [round(side * (1 - share) / 2) for side in x.shape[2:]]
    inner = x[:, :, cut[0] : x.shape[2] - cut[0], cut[1] : x.shape[3] - cut[1]]
    return F.interpolate(inner, x.shape[2:], mode="bicubic").clamp(0, 1)


def _turn(x: Tensor, degrees: float) -> Tensor:
    angle = math.radians(degrees)
    matrix = similarity(math.cos(angle), math.sin(angle)).expand(len(x), -1, -1)
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
        F.interpolate(x, [max(1, side // 2) for side in x.shape[2:]], mode="bilinear", antialias=True),
        x.shape[2:],
        mode="bilinear",
    ),
    "mirrored": lambda x: x.flip(3),
    "shifted by 1/16": lambda x: x.roll(max(1, round(x.shape[3] / 16)), 3),
    "cropped to 7/8": partial(_crop, share=7 / 8),
    "turned by 5 degrees": partial(_turn, degrees=5),
}
"""Kinds of copies whose share found is measured. x (N, 1, H, W) in [0, 1] becomes the same shape."""


def _floats(small: NDArray[np.uint8], rows: NDArray[np.int64]) -> Tensor:
    """(P, 1, 32, 32) pictures in [0, 1] of the positions `rows` (P,)."""
    return torch.from_numpy(small[rows])[:, None].float() / 255


def _pieces(rows: NDArray[np.int64], size: int) -> list[NDArray[np.int64]]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def _thumbnails(x: Tensor) -> NDArray[np.float32]:
    """(N, 256) pictures of 16×16, mean 0 and length 1."""
    flat = F.avg_pool2d(x, 2).flatten(1)
    return F.normalize(flat - flat.mean(1, keepdim=True)).numpy()


def _are_copies(
    pictures: Tensor, rows: Tensor, small: NDArray[np.uint8], others: NDArray[np.int64], mirrored: Tensor
) -> NDArray[np.bool_]:
    """(P,) whether picture `rows` (P,) of `pictures` (N, 1, 32, 32) and picture `others` (P,) of
    `small` are copies of each other; `mirrored` (P,) pictures of `small` are mirrored first."""
    span = derivatives(soft(pictures), fine)
    units = F.normalize(span[:, 0], dim=1)
    alike = []
    for piece in torch.arange(len(rows)).split(2048):
        other = _floats(small, others[piece.numpy()])
        other = torch.where(mirrored[piece, None, None, None], other.flip(3), other)
        softened = soft(other)
        correlation, maps = aligned(span[rows[piece]], softened)
        near = torch.nonzero(correlation >= LOOK_ALIKE)[:, 0]
        row, other, maps = rows[piece[near]], other[near], maps[near]
        one = pictures[row]
        copies = torch.zeros(len(piece), dtype=torch.bool)
        forth = _same(one, units[row], moved(other, maps, SIDE))
        back = _same(other, unit(fine(softened[near])), moved(one, inverse(maps), SIDE))
        copies[near] = forth | back
        alike.append(copies)
    return torch.cat([torch.empty(0, dtype=torch.bool), *alike]).numpy()


def _same(one: Tensor, of_one: Tensor, other: Tensor) -> Tensor:
    """(N,) whether pictures (N, 1, 32, 32) show the same at the same places. `of_one` (N, 256) are the
    16×16 pictures of the first, of length 1. Details are looked at where the correlation suffices."""
    same = (of_one * unit(fine(soft(other)))).sum(1) >= ALIKE
    near = torch.nonzero(same)[:, 0]
    same[near] = (_detail(one[near]) * _detail(other[near])).sum(1) >= DETAILS_ALIKE
    return same


def _detail(x: Tensor) -> Tensor:
    """(N, 784) what pictures (N, 1, 32, 32) have beyond their coarse picture, of length 1.

    They are blurred first, so that a copy that was halved and enlarged keeps its details. At the
    margin a coarse picture is not known, so the margin is left out.
    """
    x = soft(soft(x))
    detail = x - F.interpolate(shrunk(x, COARSE), (SIDE, SIDE), mode="bilinear")
    margin = SIDE // COARSE // 2
    return unit(detail[:, :, margin:-margin, margin:-margin])
