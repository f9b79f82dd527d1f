"""Sets of pictures, with classes or without, from which a bounded sample is drawn and brought to one
shape."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from stresslens.core.bit_depth import WHITE
from stresslens.core.data import PIECE_VALUES, Data, Split
from stresslens.core.errors import DataError
from stresslens.core.image_files import Fit, Frame, Unreadable, decode, quietly, read_image
from stresslens.core.image_formats import FORMATS
from stresslens.core.sampling import sampled_positions
from stresslens.core.splits import split_named
from stresslens.core.text import counted, enumeration, printable
from stresslens.core.types import Shape

PIECE = 256
"""Pictures that are held at a time."""
HEADERS, LARGEST = 200, 224
"""Files whose headers say how large the pictures of a folder are, and the largest side that is looked at
where only folders are compared."""
FACTS = ("width", "height", "bytes")


class Piece(NamedTuple):
    """Some pictures of a set: x (n, C, H, W) in [0, 1], their positions in the sample (n,), and what is
    known of their files, (n,) by name."""

    x: Tensor
    rows: NDArray[np.int64]
    facts: dict[str, NDArray[np.int64]]


@dataclass(frozen=True)
class PictureSet:
    """Pictures to compare with others: the images of some splits, or image files.

    `images` is the number of the whole set, of which this may be a sample. Without classes, `labels`
    is empty.
    """

    name: str
    names: Sequence[str]
    images: int
    fingerprints: frozenset[str] = frozenset()
    """Those of the splits that the images were drawn from."""
    splits: Sequence[Split] = ()
    files: Sequence[Path] = ()
    labels: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    classes: Sequence[str] = ()
    fit: Fit = "crop"
    white: int = WHITE

    def __len__(self) -> int:
        return len(self.names)

    @staticmethod
    def of_data(data: Data, split: str, most: int, seed: int) -> PictureSet:
        """A sample of at most `most` images of a split of a data set, or with `all` of all of them.

        Raises ConfigError for a split that the data do not have."""
        chosen = data.splits if split == "all" else {split: split_named(data, split)}
        sizes = [len(each) for each in chosen.values()]
        drawn = sampled_positions(sum(sizes), most, seed)
        splits: list[Split] = []
        names: list[str] = []
        start = 0
        for name, each in chosen.items():
            rows = drawn[(drawn >= start) & (drawn < start + len(each))] - start
            start += len(each)
            if len(rows):
                part = each.select(rows)
                splits.append(part)
                files = part.columns.get("file")
                names += [f"{name}[{k}]" for k in rows.tolist()] if files is None else map(str, files)
        return PictureSet(
            data.name if split == "all" else f"{data.name} ({split})",
            names,
            sum(sizes),
            frozenset(each.fingerprint for each in chosen.values()),
            splits,
            labels=torch.cat([each.labels.cpu() for each in splits]).numpy(),
            classes=data.classes,
            fit=data.fit,
            white=data.white,
        )

    @staticmethod
    def of_files(name: str, files: Sequence[Path], most: int, seed: int) -> PictureSet:
        """A sample of at most `most` image files."""
        drawn = [files[k] for k in sampled_positions(len(files), most, seed).tolist()]
        return PictureSet(name, [printable(str(file)) for file in drawn], len(files), files=drawn)

    def prepared_like(self, other: PictureSet) -> PictureSet:
        """The set whose files are fitted to a shape as those of `other` were."""
        return replace(self, fit=other.fit, white=other.white) if self.files else self

    @property
    def shape(self) -> Shape | None:
        """The shape of the images; None for files, which take any."""
        return self.splits[0].shape if self.splits else None

    def typical_shape(self) -> Shape:
        """Of files: the median height and width, no side above `LARGEST`, in colour. Raises DataError
        where no file can be read."""
        sizes = []
        for k in sampled_positions(len(self.files), HEADERS, 0).tolist():
            try:
                with quietly(), Image.open(self.files[k], formats=FORMATS) as picture:
                    sizes.append((picture.height, picture.width))
            except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
                continue
        if not sizes:
            raise DataError(f"{self.name}: none of {counted(len(self), 'file')} can be read as an image")
        height, width = (int(side) for side in np.median(sizes, axis=0))
        scale = min(1.0, LARGEST / max(height, width))
        return (3, max(1, round(scale * height)), max(1, round(scale * width)))

    def pieces(self, shape: Shape, unreadable: dict[str, str]) -> Iterator[Piece]:
        """The pictures in this shape, in order. Files that cannot be read are left out and added to
        `unreadable`, with the reason."""
        size = max(1, min(PIECE, PIECE_VALUES // int(np.prod(shape))))
        start = 0
        for split in self.splits:
            facts = {name: split.columns[name] for name in FACTS if name in split.columns}
            done = 0
            for images in split.pieces(size):
                x = brought_to(split.floats(images.cpu()), shape)
                rows = np.arange(done, done + len(x))
                yield Piece(x, start + rows, {name: np.asarray(c[rows]) for name, c in facts.items()})
                done += len(x)
            start += len(split)
        for first in range(0, len(self.files), size):
            if (piece := self._decoded(first, first + size, shape, unreadable)) is not None:
                yield piece

    def _decoded(self, first: int, last: int, shape: Shape, unreadable: dict[str, str]) -> Piece | None:
        frame = Frame.of(shape, self.fit, self.name, self.white)
        pixels, rows, facts = [], [], []
        for row, file in enumerate(self.files[first:last], first):
            try:
                with quietly():
                    content = read_image(str(file))
                    image = decode(content, frame)
            except (Unreadable, OSError) as error:
                reason = error.strerror if isinstance(error, OSError) else None
                unreadable[self.names[row]] = reason or str(error)
                continue
            pixels.append(image.pixels)
            rows.append(row)
            facts.append((image.width, image.height, len(content)))
        if not rows:
            return None
        x = torch.from_numpy(np.stack(pixels)).float() / 255
        columns = dict(zip(FACTS, np.array(facts, np.int64).T))
        return Piece(x, np.array(rows), columns)


def brought_to(x: Tensor, shape: Shape) -> Tensor:
    """Images x (N, C, H, W) in another shape: one channel is the mean of several, and a grey image has
    three equal ones; sizes by bilinear interpolation, antialiased."""
    if x.shape[1] != shape[0]:
        x = x.mean(1, keepdim=True).expand(-1, shape[0], -1, -1)
    if x.shape[2:] != shape[1:]:
        x = F.interpolate(x, shape[1:], mode="bilinear", antialias=True).clamp(0, 1)
    return x


def common_shape(a: PictureSet, b: PictureSet) -> tuple[Shape, str]:
    """The shape in which two sets are compared, and a note where their own differ.

    Files take the shape of the other set. Otherwise each side is the smaller of both, and images of
    different numbers of channels are compared in grey.
    """
    one, other = a.shape, b.shape
    if one is None and other is None:
        one, other = a.typical_shape(), b.typical_shape()
    one, other = one or other, other or one
    assert one is not None
    assert other is not None
    channels = one[0] if one[0] == other[0] else 1
    shape = (channels, min(one[1], other[1]), min(one[2], other[2]))
    if one == other:
        return shape, ""
    sizes = " and ".join("×".join(map(str, each)) for each in (one, other))
    return shape, (
        f"the images are {sizes} (channels×height×width); they are compared as "
        f"{'×'.join(map(str, shape))}, and what scaling does to them counts as a difference"
    )


def names_left_out(unreadable: dict[str, str]) -> str:
    """A note on the files that cannot be read; empty without any."""
    if not unreadable:
        return ""
    said = [f"{name} ({reason})" for name, reason in unreadable.items()]
    return (
        f"{counted(len(said), 'file')} cannot be read and {'is' if len(said) == 1 else 'are'} left out: "
        + (enumeration(said, 3))
    )
