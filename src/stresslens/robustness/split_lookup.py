"""Looks images up in a split: by equal pixels, and otherwise the nearest image."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from stresslens.core.data import Split

ROUNDING = 1.001 / 255
"""Two images are the same up to rounding in 8 bits if no pixel differs by more than one level, which
is what cutting off the digits may cost."""
THUMBNAIL = 8
CANDIDATES = 4
PIECE = 256


@dataclass(frozen=True)
class Lookup:
    """Where m images are in a split."""

    positions: Tensor
    """(m,) int64, -1 for an image that is not in the split."""
    apart: Tensor
    """(m,) the largest difference of a pixel from that image, or from the nearest one of the split
    where it is not found."""


def look_up(x: Tensor, split: Split) -> Lookup:
    """Finds images x (m, C, H, W) float32 in [0, 1] in a split, exactly or up to `ROUNDING`.

    Equal images of the split are taken one after the other, so that a copy of the whole split finds
    every position once.
    """
    x = x.cpu()
    places: dict[bytes, list[int]] = defaultdict(list)
    position = 0
    for piece in split.pieces(PIECE):
        for key in digests(split.floats(piece.cpu())):
            places[key].append(position)
            position += 1
    used = [False] * len(split)
    positions, apart = torch.full((len(x),), -1), torch.zeros(len(x))
    for row, key in enumerate(digests(x)):
        if key in places:
            positions[row] = _take(places[key], used)
    rest = (positions < 0).nonzero().flatten()
    if len(rest):
        near, difference = nearest(x[rest], split)
        apart[rest] = difference.amin(1)
        for row, candidates, differences in zip(rest.tolist(), near.tolist(), difference.tolist()):
            same = [place for place, size in zip(candidates, differences) if size <= ROUNDING]
            if same:
                positions[row] = _take(same, used)
    return Lookup(positions, apart)


def nearest(x: Tensor, split: Split) -> tuple[Tensor, Tensor]:
    """(m, k) the positions of the k images of the split whose thumbnails are nearest to those of x,
    and (m, k) the largest difference of a pixel from each."""
    x = x.cpu()
    small = torch.cat([_thumbnails(split.floats(piece.cpu())) for piece in split.pieces(PIECE)])
    positions = torch.cat(
        [
            torch.cdist(_thumbnails(part), small).topk(min(CANDIDATES, len(split)), largest=False).indices
            for part in torch.split(x, split.piece(PIECE))
        ]
    )
    apart = torch.stack([largest_difference(x, split, column) for column in positions.unbind(1)], 1)
    return positions, apart


def largest_difference(x: Tensor, split: Split, positions: Tensor) -> Tensor:
    """(m,) the largest difference of a pixel between x and the images at these positions."""
    return torch.cat(
        [
            (part - images).flatten(1).abs().amax(1)
            for part, images in zip(torch.split(x.cpu(), split.piece(PIECE)), _images_at(split, positions))
        ]
    )


def digests(x: Tensor) -> list[bytes]:
    """A digest of the pixels of each image (m, C, H, W); -0 counts as 0."""
    return [hashlib.blake2b((image + 0.0).numpy().tobytes(), digest_size=16).digest() for image in x.cpu()]


def _images_at(split: Split, positions: Tensor) -> Iterator[Tensor]:
    for rows in torch.split(positions, split.piece(PIECE)):
        yield split.floats(split.images[rows].cpu())


def _take(places: list[int], used: list[bool]) -> int:
    """The first place that is not used yet, or else the first."""
    place = next((place for place in places if not used[place]), places[0])
    used[place] = True
    return place


def _thumbnails(x: Tensor) -> Tensor:
    """(m, D) the means of at most 8×8 cells of each image."""
    height, width = x.shape[2:]
    cells = (min(height, THUMBNAIL), min(width, THUMBNAIL))
    return F.adaptive_avg_pool2d(x.float(), cells).flatten(1)
