from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from stresslens.core.data import Data
from stresslens.core.findings import no_sign, not_checked, sign
from stresslens.core.picture_facts import ClassEdges, PictureFacts
from stresslens.core.types import Count, Finding, Positive, Share

AUDIT = "shared marks"


def shared_marks(
    data: Data,
    pictures: PictureFacts,
    *,
    images: Count = 20,
    edge: Share = 0.04,
    times: Positive = 2.0,
    pixels: Count = 3,
) -> Finding:
    """A mark at the same place in the images of one class, such as a watermark, a logo or a date.

    The edges of a mark are the same in every image, those of the content are not. So a pixel belongs to a
    mark if the difference to its neighbour is above `edge` on the mean of the class's training images, and
    above `times` its standard deviation, and this is not so in the other classes. A sign from so many
    `pixels` on, in classes of at least so many `images`. (Lapuschkin et al. 2019 found the classifier that
    recognised horses by the photographer's name.) A mark in fewer than about four fifths of a class, or
    at changing places, is not found. Images that are alike as a whole, such as handwriting, are not
    checked.
    """
    if pictures.alike:
        return not_checked(
            AUDIT,
            "images of one class are so similar here that marks cannot be distinguished from the content",
        )
    if min(data.shape[1:]) < 4:
        return not_checked(AUDIT, "the images are too small for marks")
    every = pictures.edges.together()
    large = torch.nonzero(pictures.edges.n >= images)[:, 0].tolist()
    if not large:
        return not_checked(AUDIT, f"no class has {images} training images")
    found = []
    for label in large:
        own = pictures.edges.only(label)
        marked = _marked(own, every - own, edge, times)
        if int(marked.sum()) >= pixels:
            found.append((label, marked))
    looked = _looked(pictures, every, edge, times, pixels)
    n = int(every.n)
    if not found:
        return no_sign(AUDIT, f"none in {len(large)} classes ({n} training images); {looked}", n)
    named = "; ".join(
        f"{data.classes[label]}: {int(marked.sum())} pixels, {_where(marked)}" for label, marked in found[:5]
    )
    rows = [np.flatnonzero((pictures.part == 0) & (pictures.labels == label))[:8] for label, _ in found[:5]]
    return sign(
        AUDIT,
        f"{len(found)} of {len(large)} classes have edges that are the same in all their images ({named}); "
        f"{looked}",
        n,
        "look at these places; crop or cover the mark, or take the images of the other classes from the same "
        "source: a network learns the mark",
        items=[f"{data.classes[label]}: {_where(marked)}" for label, marked in found],
        places=np.concatenate(rows).tolist(),
    )


def _marked(own: ClassEdges, others: ClassEdges, edge: float, times: float) -> Tensor:
    """(h, w) pixels where images of a class have the same edge, and the others do not."""
    mean, deviation = own.moments()
    rest, rest_deviation = others.moments()
    same = (mean.abs() > edge) & (mean.abs() > times * deviation)
    elsewhere = (rest.abs() > 0.75 * times * rest_deviation) & (rest.abs() > edge / 2)
    return (same & ~elsewhere).any(1)[0]


def _where(marked: Tensor) -> str:
    """The middle of the marked pixels, in words."""
    rows, columns = torch.nonzero(marked).double().mean(0).tolist()
    height, width = marked.shape
    down = ("at the top", "in the middle", "at the bottom")[min(2, int(3 * (rows + 0.5) / height))]
    across = (" left", "", " right")[min(2, int(3 * (columns + 0.5) / width))]
    return down + across


def _looked(pictures: PictureFacts, every: ClassEdges, edge: float, times: float, pixels: int) -> str:
    """Which marks would have been found, on images of these data that stand for a class."""
    x = pictures.examples
    side = max(2, min(x.shape[2:]) // 6)
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    mark = ((rows // max(1, side // 3) + columns // max(1, side // 3)) % 2).float()
    found = []
    for what, strength, share in (
        ("opaque", 1.0, 1.0),
        ("half transparent", 0.5, 1.0),
        ("opaque on four fifths of them", 1.0, 0.8),
        ("opaque on half of them", 1.0, 0.5),
    ):
        marked, some = x.clone(), round(share * len(x))
        corner = marked[:some, :, -side - 1 : -1, -side - 1 : -1]
        corner.mul_(1 - strength).add_(strength * mark)
        own = ClassEdges.of(marked, torch.zeros(len(x), dtype=torch.int64), 1)
        seen = int(_marked(own, every, edge, times).sum()) >= pixels
        found.append(f"{what}: {'found' if seen else 'not found'}")
    return (
        f"a chequered mark of {side}×{side} pixels that was put on {len(x)} images of these data is "
        f"{', '.join(found)}"
    )
