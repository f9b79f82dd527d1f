"""All pairs of pictures whose coarse pictures (8×8) are alike but for a small movement.

A coarse picture of one image is compared with the space that a coarse picture of the other and its
derivatives by shift, scale and rotation span (tangent distance; Simard, LeCun & Denker 1993), also
mirrored. Let d be the one, of length 1, and Q the orthonormal rows that span the space: the pair is
kept if |Q d| >= `COARSE_ALIKE`.

A sieve leaves out most pairs and loses none. 1 - |Q d|² is the least squared distance of d from the
space. It is at least the least distance of their projections on any axes, which is the quadratic form
d' M d with the projections d' on `EVEN` + `ODD` axes and M = 1 - P', P' the projection on the space's.
The axes are the principal ones of the even and of the odd part of the coarse pictures. A mirrored
picture has the opposite odd part. So d' M d is S + C for d and S - C for its mirror image, where S and C
are products of numbers of the one picture with numbers of the other: two matrix products for all pairs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from stresslens.evaluation.picture_alignment import FINE, derivatives, shrunk, unit

COARSE = 8
COARSE_ALIKE = 0.94
"""Least length of a coarse picture's projection on the other picture and its derivatives."""
PARTNERS = 500
"""Each image is aligned with at most so many later images, the most similar by the first step."""
EVEN, ODD = 12, 8
"""Axes of the sieve. Of CIFAR-10 (JPEG) it lets 0.3 % of the pairs through."""
SLACK = 1e-4
"""Room in the sieve for the rounding of float32, which is below 1e-5 for such sums."""
COLUMNS = 1024
"""Pictures that are compared with a block of others in one product, so that it stays in the cache."""
GATHERED = 8192
"""Pairs whose projections are computed together."""
CROWDED = 1 / 32
"""Share of the pairs of a block from which on it is quicker to project all of them."""


def coarse_pictures(x: Tensor) -> Tensor:
    """(N, 64) pictures of 8×8 of pictures (N, 1, H, W), centred, of length 1."""
    return unit(shrunk(x, COARSE))


def mirrored(coarse: Tensor) -> Tensor:
    """Coarse pictures (N, 64) of the mirrored pictures."""
    return coarse.view(-1, COARSE, COARSE).flip(2).flatten(1)


def projection(x: Tensor, coarse: Tensor) -> Tensor:
    """(N,) lengths of coarse pictures (N, 64), projected on what x and its derivatives span."""
    lengths: Tensor = torch.linalg.vector_norm(torch.einsum("nkd,nd->nk", _basis(x), coarse), dim=1)
    return lengths


def sieve_axes(coarse: Tensor) -> Tensor:
    """(20, 64) orthonormal axes: the first principal ones of the even and of the odd part of coarse
    pictures (N, 64), `EVEN` and `ODD` in number."""
    left = torch.eye(COARSE**2)[torch.arange(COARSE**2) % COARSE < COARSE // 2]
    axes = []
    for sign, count in ((1, EVEN), (-1, ODD)):
        part = (left + sign * mirrored(left)) / math.sqrt(2)  # (32, 64) orthonormal
        values = (coarse @ part.T).double()
        principal = torch.linalg.eigh(values.T @ values).eigenvectors.flip(1)[:, :count]
        axes.append(principal.float().T @ part)
    return torch.cat(axes)


def candidates(pictures: Tensor, start: int, coarse: Tensor, axes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Pairs (i, j, whether j is mirrored) of pictures (N, 1, 32, 32) from position `start` on with
    later ones, whose coarse pictures are alike; for each picture the `PARTNERS` most alike. `axes` are
    those of `sieve_axes`."""
    bases = _basis(pictures)
    forms = _forms(bases @ axes.T)
    kept: list[tuple[Tensor, ...]] = []
    for column in range(start, len(coarse), COLUMNS):
        others = coarse[column : column + COLUMNS]
        for flipped, i, j in _sieved(forms, others @ axes.T):
            later = j + column > i + start
            i, j = i[later], j[later]
            squares = _squares(bases, mirrored(others) if flipped else others, i, j)
            alike = squares >= COARSE_ALIKE**2
            i, j, squares = i[alike], j[alike], squares[alike]
            kept.append((i + start, j + column, torch.full_like(i, flipped, dtype=torch.bool), squares))
    i, j, flips, squares = (torch.cat(values) for values in zip(*kept))
    order = torch.argsort(squares, descending=True, stable=True)
    order = order[torch.argsort(i[order], stable=True)]
    first = torch.searchsorted(i[order], i[order])
    order = order[torch.arange(len(order)) - first < PARTNERS]
    return i[order], j[order], flips[order]


def _basis(x: Tensor) -> Tensor:
    """(N, 5, 64) orthonormal bases of coarse pictures of x and their derivatives."""
    span = derivatives(shrunk(x, FINE), lambda picture: shrunk(picture, COARSE))
    basis: Tensor = torch.linalg.qr(span.transpose(1, 2)).Q
    return basis.transpose(1, 2)


def _places() -> tuple[Tensor, Tensor]:
    """Pairs of axes, (2, P) each: of two even or two odd ones, each once, and of an even and an odd one."""
    same = [torch.triu_indices(EVEN, EVEN), torch.triu_indices(ODD, ODD) + EVEN]
    return torch.cat(same, 1), torch.cartesian_prod(torch.arange(EVEN), torch.arange(ODD) + EVEN).T


SAME, CROSSED = _places()


def _forms(heads: Tensor) -> tuple[Tensor, Tensor]:
    """The quadratic forms M of spaces, whose bases (N, 5, 20) are given on the axes: what products of
    the coordinates of a picture are multiplied by, for S and for C."""
    inside = torch.linalg.qr(heads.transpose(1, 2)).Q
    form = torch.eye(EVEN + ODD) - inside @ inside.transpose(1, 2)
    twice = torch.where(SAME[0] == SAME[1], 1.0, 2.0)
    return form[:, SAME[0], SAME[1]] * twice, 2 * form[:, CROSSED[0], CROSSED[1]]


def _sieved(forms: tuple[Tensor, Tensor], heads: Tensor) -> Iterator[tuple[bool, Tensor, Tensor]]:
    """Pairs (i, j) of spaces, given by their `forms`, and of pictures, given by their coordinates on the
    axes (M, 20), that may be alike: as they are (False), and with the picture mirrored (True)."""
    limit = 1 - COARSE_ALIKE**2 + SLACK
    same = forms[0] @ (heads[:, SAME[0]] * heads[:, SAME[1]]).T
    crossed = forms[1] @ (heads[:, CROSSED[0]] * heads[:, CROSSED[1]]).T
    near = torch.from_numpy(np.flatnonzero((same - crossed.abs() <= limit).numpy()))
    same, crossed = same.flatten()[near], crossed.flatten()[near]
    for flipped, distance in ((False, same + crossed), (True, same - crossed)):
        chosen = near[distance <= limit]
        yield flipped, chosen // len(heads), chosen % len(heads)


def _squares(bases: Tensor, others: Tensor, i: Tensor, j: Tensor) -> Tensor:
    """(P,) squared lengths of pictures `others` (M, 64) at j (P,), projected on `bases` (N, 5, 64) at
    i (P,)."""
    if len(i) > CROWDED * len(bases) * len(others):
        squares: Tensor = torch.einsum("nkd,md->nkm", bases, others).square_().sum(1)[i, j]
        return squares
    parts = [
        torch.bmm(bases[i[part]], others[j[part], :, None]).square_().sum((1, 2))
        for part in torch.arange(len(i)).split(GATHERED)
    ]
    return torch.cat([torch.empty(0), *parts])
