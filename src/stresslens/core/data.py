"""Data set: splits of images and labels, batches, and division of arrays into splits.

Images stay uint8 until a batch is made.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stresslens.core.arrays import image_tensor
from stresslens.core.bit_depth import WHITE
from stresslens.core.data_cards import class_counts, data_card, data_name, image_rows, split_card, split_name
from stresslens.core.data_root import data_root as data_root
from stresslens.core.draws import Draws, mix
from stresslens.core.errors import DataError, ends_at_caller
from stresslens.core.image_files import Fit
from stresslens.core.labels import named_labels, names_as_given
from stresslens.core.sampling import balanced_order, divide, shuffled
from stresslens.core.stored_images import Stored
from stresslens.core.tables import ResultTable, Tabular
from stresslens.core.text import counted, repeated_words
from stresslens.core.torch_settings import initial_settings
from stresslens.core.types import Augmentation, Finding, Shape

RESIDENT_BYTES = 32 * 2**20
"""A split of at most this size as float32 is converted once, and not for each batch."""
PIECE, PIECE_VALUES = 4096, 4096 * 3 * 32 * 32
"""At most so many images, and pixel values, of a split are looked at at once. Both are fixed: sums
over a split add up its pieces in the same order everywhere."""
ROUNDED = 1e-5
"""Images may leave [0,1] by so much: a resize in float32 gives 1.0000001. A grey level is 0.004."""


class Batch(NamedTuple):
    """x (N,C,H,W) in [0,1]; y (N,) int64, or (N,K) after mixup; places (N,), positions in the
    split."""

    x: Tensor
    y: Tensor
    places: Tensor


@dataclass(frozen=True, repr=False)
class Split(Tabular):
    """images (N,C,H,W) uint8 or float, labels (N,) int64.

    `scale` is the value of white (255; digits 16; floats in [0,1]: 1). `images` may be on disk
    (`Stored`); they are then read batch by batch. `columns` holds further values of each image,
    (N,) by name: for a folder of image files these are "file", "group", "width", "height", "bytes"
    and the columns of its table. Raises DataError for any other shape or type, for images that are
    not finite, and for lengths that differ.
    """

    images: Tensor | Stored
    labels: Tensor
    scale: float = 255.0
    columns: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        x, y = self.images, self.labels
        if x.ndim != 4 or 0 in x.shape:
            raise DataError(
                f"images have shape {tuple(x.shape)}; "
                "expected (images, channels, height, width), none of them 0"
            )
        if x.dtype not in (torch.uint8, torch.float32, torch.float64):
            raise DataError(f"images are {x.dtype}; expected uint8 (0 to `scale`) or float32 in [0, 1]")
        if y.dtype != torch.int64 or y.ndim != 1:
            raise DataError(
                f"labels are {y.dtype} of shape {tuple(y.shape)}; expected int64 of shape (images,)"
            )
        if len(x) != len(y):
            raise DataError(f"{counted(len(x), 'image')} but {counted(len(y), 'label')}")
        for name, column in self.columns.items():
            if column.shape != (len(y),):
                raise DataError(
                    f"column {name!r} has shape {column.shape}; "
                    f"expected one value for each of {len(y)} images"
                )
        if isinstance(x, Tensor) and x.is_floating_point():
            finite = torch.isfinite(x.flatten(1)).all(1)
            if not finite.all():
                bad = (~finite).nonzero().flatten().tolist()
                raise DataError(
                    f"{counted(len(bad), 'image holds', 'images hold')} NaN or infinity, "
                    f"first at index {bad[0]}; repair or remove them"
                )

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        return f"Split({split_name(self.labels, self.shape)})"

    def _repr_html_(self) -> str:
        return split_card(self)

    def _table(self) -> ResultTable:
        return image_rows(self.labels, self.columns)

    @property
    def shape(self) -> Shape:
        c, h, w = self.images.shape[1:]
        return (c, h, w)

    def select(self, index: Tensor | Sequence[int]) -> Split:
        """The split with the images at `index`, in that order."""
        rows = torch.as_tensor(index)
        images = self.images.select(rows) if isinstance(self.images, Stored) else self.images[rows]
        columns = {name: column[rows.cpu().numpy()] for name, column in self.columns.items()}
        return replace(self, images=images, labels=self.labels[rows], columns=columns)

    def to(self, device: torch.device | str) -> Split:
        return replace(self, images=self.images.to(device), labels=self.labels.to(device))

    def uncached(self) -> Split:
        """The split without what was computed from its images and labels before: the caller may have
        changed them in place. Tensors made inside torch.inference_mode() are copied, because they take
        no part in gradients."""
        images = self.images
        if isinstance(images, Tensor) and images.is_inference():
            images = images.clone()
        return replace(
            self, images=images, labels=self.labels.clone() if self.labels.is_inference() else self.labels
        )

    def in_range(self) -> Split:
        """The split with its images in [0,1] as floats: values that rounding carried beyond, by at most
        `ROUNDED`, become 0 or 1. Raises DataError where others are beyond."""
        if self.images.dtype == torch.uint8 and self.scale >= 255:
            return self
        low, high, outside, first, start = np.inf, -np.inf, 0, -1, 0
        for piece in self.pieces():
            x = self.floats(piece)
            low, high = min(low, float(x.min())), max(high, float(x.max()))
            wrong = ((x < -ROUNDED) | (x > 1 + ROUNDED)).flatten(1).any(1).nonzero().flatten()
            if len(wrong):
                outside, first = outside + len(wrong), first if first >= 0 else start + int(wrong[0])
            start += len(piece)
        if outside:
            hint = (
                "divide by 255, or another value of white"
                if high > 2 and low >= 0
                else "put the normalisation into the model, behind images in [0, 1] (`input: {normalize: …}`)"
            )
            raise DataError(
                f"{counted(outside, 'image leaves', 'images leave')} [0, 1] "
                f"({low:g} to {high:g}), first at index {first}; {hint}"
            )
        if (low >= 0 and high <= 1) or not isinstance(self.images, Tensor):
            return self
        return replace(self, images=self.images.clamp(0, self.scale))

    def floats(self, images: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Images of this split as floats in [0,1], as `batches` gives them."""
        return (
            images.to(dtype, copy=True).div_(self.scale)
            if self.scale != 1 or images.dtype != dtype
            else images
        )

    def piece(self, most: int = PIECE) -> int:
        """The number of images in a piece: `most`, fewer of large images (`PIECE_VALUES`)."""
        return max(1, min(most, PIECE_VALUES // self.images.shape[1:].numel()))

    def pieces(self, most: int = PIECE) -> Iterator[Tensor]:
        """The images as stored (not scaled), `piece` of them at a time, in order."""
        size = self.piece(most)
        for start in range(0, len(self), size):
            yield self.images[start : start + size]

    @cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that change with any pixel or label."""
        digest = hashlib.sha256(f"{self.scale} {self.images.dtype} {tuple(self.images.shape)}".encode())
        if isinstance(self.images, Stored):
            digest.update(self.images.content())
        else:
            digest.update(np.ascontiguousarray(self.images.cpu().numpy()).data)
        digest.update(np.ascontiguousarray(self.labels.cpu().numpy()).data)
        return digest.hexdigest()[:16]

    @cached_property
    def _resident(self) -> Tensor | None:
        small = self.images.numel() * 4 <= RESIDENT_BYTES
        return self.floats(self.images[:]) if small and self.images.dtype != torch.float64 else None

    def batches(
        self,
        size: int,
        *,
        seed: int | None = None,
        shuffle: bool = True,
        balanced: bool = False,
        epoch: int = 0,
        start_step: int = 0,
        dtype: torch.dtype = torch.float32,
        augment: Sequence[Augmentation] = (),
        part: tuple[int, int] = (0, 1),
    ) -> Iterator[Batch]:
        """The batches of one epoch, from batch `start_step` on, on the split's device.

        Each batch has `size` images; the last may be smaller. The method has no state: the order
        and the random draws follow from (seed, epoch, index) alone. With `seed=None` or
        `shuffle=False`, and if one batch holds everything, the order is that of the split.

        `balanced` gives the same number of images of every class; the epoch keeps its length.
        Images of small classes occur several times, each time with other draws.

        With `part` (k, n), only the images k, k + n, … of every batch are given. Only they are
        read, except with augmentations, which may mix images.
        """
        ready = self._resident if dtype == torch.float32 else None
        if ready is not None and not augment and (seed is None or not shuffle or size >= len(self)):
            yield from self._in_file_order(size, part)[start_step:]
            return
        places = self._places
        first, stride = (0, 1) if augment else part
        order = None
        if seed is not None and shuffle and size < len(self):
            order = (
                balanced_order(self.labels.cpu(), seed, epoch)
                if balanced
                else shuffled(len(self), seed, epoch)
            )
            order = order.to(self.images.device)
        for start in range(start_step * size, len(self), size):
            in_batch = slice(start + first, start + size, stride)
            if order is None:
                rows: Tensor | slice = in_batch
                index = ticket = places[rows]
            else:
                ticket = order[in_batch]
                rows = index = ticket % len(self) if balanced else ticket
            x = ready[rows] if ready is not None else self.floats(self.images[rows], dtype)
            y = self.labels[rows]
            if augment:
                draws = Draws(mix(seed or 0, epoch), ticket)
                for augmentation in augment:
                    x, y = augmentation(x=x, y=y, draws=draws)
                x, y, index = (values[part[0] :: part[1]] for values in (x, y, index))
            yield Batch(x, y, index)

    def _in_file_order(self, size: int, part: tuple[int, int]) -> list[Batch]:
        """The batches of a resident split, or a part of each; the views are made once."""
        if (size, part) not in self._sequences and self._resident is not None:
            rows = [slice(start + part[0], start + size, part[1]) for start in range(0, len(self), size)]
            self._sequences[size, part] = [
                Batch(self._resident[r], self.labels[r], self._places[r]) for r in rows
            ]
        return self._sequences[size, part]

    @cached_property
    def _sequences(self) -> dict[tuple[int, tuple[int, int]], list[Batch]]:
        return {}

    @cached_property
    def _places(self) -> Tensor:
        return torch.arange(len(self), device=self.images.device)


@dataclass(frozen=True, repr=False)
class Data(Tabular):
    """A data set: training, validation and test splits of one image shape, and the class names.

    Raises DataError if a label is outside the classes, if splits differ in shape, or if the
    training images show fewer than two classes.
    """

    train: Split
    validation: Split | None
    test: Split | None
    classes: tuple[str, ...]
    name: str = "tensors"
    notes: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    """Findings of the loader, from reading the files."""
    division: Mapping[str, Any] | None = None
    """Which fold or random split this is, if a study repeats over divisions of the data."""
    fit: Fit = "crop"
    """How image files were fitted to this shape, and how others will be."""
    white: int = WHITE
    """The value of white in image files of more than 8 bits."""
    slices: tuple[str, ...] = ()
    """Columns whose values always get their own scores. Other columns get them if they have few
    values."""
    parts: str = ""
    """Which parts the user's files gave and which were drawn, in words."""
    calibration: Split | None = None
    """Validation images that were set aside: they chose nothing, and calibrate prediction sets."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", names_as_given(self.classes))
        if len(self.classes) < 2:
            raise DataError(f"{self.name}: {len(self.classes)} class; a classifier needs at least two")
        if twice := repeated_words(self.classes):
            raise DataError(f"{self.name}: two classes are called {twice[0]!r}; each needs its own name")
        for name, split in self.splits.items():
            low, high = int(split.labels.min()), int(split.labels.max())
            if low < 0 or high >= len(self.classes):
                wrong = int(((split.labels < 0) | (split.labels >= len(self.classes))).nonzero()[0])
                raise DataError(
                    f"{self.name}: {name} label {int(split.labels[wrong])} (image {wrong}) is out of range; "
                    f"{len(self.classes)} classes take the labels 0 to {len(self.classes) - 1}"
                )
            if split.shape != self.train.shape:
                raise DataError(
                    f"{self.name}: {name} images are {split.shape}, training images {self.train.shape}"
                )
        if len(torch.unique(self.train.labels)) < 2:
            raise DataError(
                f"{self.name}: every training image has the same label; "
                "a classifier needs at least two classes"
            )

    def __repr__(self) -> str:
        return f"Data({data_name(self)})"

    def _repr_html_(self) -> str:
        return data_card(self)

    def _table(self) -> ResultTable:
        return class_counts(self.classes, {name: split.labels for name, split in self.splits.items()})

    @property
    def splits(self) -> dict[str, Split]:
        named: dict[str, Split | None] = {"train": self.train, "validation": self.validation}
        named |= {"calibration": self.calibration, "test": self.test}
        return {name: split for name, split in named.items() if split is not None}

    @property
    def shape(self) -> Shape:
        return self.train.shape

    @cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that change with any pixel, label, division or class name."""
        splits = [(name, split.fingerprint) for name, split in self.splits.items()]
        return hashlib.sha256(repr((self.classes, self.shape, splits)).encode()).hexdigest()[:16]

    def uncached(self) -> Data:
        """As `Split.uncached`, for every split."""
        fresh: dict[str, Any] = {name: split.uncached() for name, split in self.splits.items()}
        return replace(self, **fresh)

    def to(self, device: torch.device | str) -> Data:
        moved: dict[str, Any] = {name: split.to(device) for name, split in self.splits.items()}
        return replace(self, **moved)

    @staticmethod
    @ends_at_caller
    @initial_settings()
    def from_arrays(
        images: Tensor | np.ndarray | Sequence[Any],
        labels: Tensor | np.ndarray | Sequence[int | str],
        *,
        classes: Sequence[Any] | Mapping[Any, Any] | None = None,
        validation: int | float = 0.2,
        test: int | float = 0.2,
        groups: Sequence[Any] | np.ndarray | None = None,
        seed: int = 42,
        name: str = "tensors",
    ) -> Data:
        """A data set from your own arrays, divided at random and stratified by class.

        `images` are (N,C,H,W), (N,H,W,C) or (N,H,W), uint8 in 0 … 255 or float in [0,1]
        (`core.arrays.image_tensor`). `labels` are (N,) words or whole numbers, or one-hot rows; with
        `classes`, the names in their order, numbers count from 0 (`core.labels.named_labels`).
        `validation` and `test` are shares (below 1) or counts. Images with the same value in
        `groups` (N,) stay in one split. Raises DataError for unusable arrays.
        """
        y, named = named_labels(labels, classes)
        x = image_tensor(images, len(y))
        columns = {} if groups is None else {"group": np.asarray(groups)}
        whole = Split(x, y.to(x.device), 255.0 if x.dtype == torch.uint8 else 1.0, columns).in_range()
        parts = divide(
            y, {"test": test, "validation": validation}, seed=seed, names=named, groups=columns.get("group")
        )
        return Data(
            whole.select(parts["train"]),
            part_of(whole, parts["validation"]),
            part_of(whole, parts["test"]),
            named,
            name,
        )


def part_of(split: Split, rows: Tensor) -> Split | None:
    """A subset of the split, or None if `rows` is empty."""
    return split.select(rows) if len(rows) else None
