"""How a data set and a split are shown: numbers of images by class, and the first images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stresslens.core.cards import card, pictures, sentences
from stresslens.core.panels import image_pixels
from stresslens.core.result_lists import Findings
from stresslens.core.tables import ResultTable
from stresslens.core.text import brief
from stresslens.core.types import Finding, Shape

PICTURES = 10


class _Split(Protocol):
    """What of a `core.data.Split` is shown."""

    @property
    def images(self) -> Any: ...
    @property
    def labels(self) -> Tensor: ...
    @property
    def shape(self) -> Shape: ...
    def select(self, index: Tensor | Sequence[int]) -> Any: ...
    def floats(self, images: Tensor) -> Tensor: ...
    def _table(self) -> ResultTable: ...


class _Data(Protocol):
    """What of a `core.data.Data` is shown."""

    @property
    def train(self) -> Any: ...
    @property
    def classes(self) -> Sequence[str]: ...
    @property
    def name(self) -> str: ...
    @property
    def notes(self) -> Sequence[str]: ...
    @property
    def findings(self) -> Sequence[Finding]: ...
    @property
    def shape(self) -> Shape: ...
    @property
    def splits(self) -> Mapping[str, Any]: ...
    def _table(self) -> ResultTable: ...


def split_name(labels: Tensor, shape: Shape) -> str:
    """The number of images, their shape and their labels in words."""
    size = " × ".join(map(str, shape))
    if not len(labels):
        return f"no images, {size}"
    return f"{len(labels):,} images, {size}, labels {int(labels.min())} to {int(labels.max())}"


def data_name(data: _Data) -> str:
    """The name of a data set with its sizes."""
    sizes = ", ".join(f"{name} {len(split):,}" for name, split in data.splits.items())
    shape = " × ".join(map(str, data.shape))
    return f"{brief(data.name)}: {sizes}; {len(data.classes)} classes, {shape}"


def split_card(split: _Split) -> str:
    present, counts = torch.unique(split.labels.cpu(), return_counts=True)
    table = ResultTable(("label", "images"), list(zip(map(str, present.tolist()), counts.tolist())))
    rows = _one_of_each(split.labels)
    return card(
        f"Split of {split_name(split.labels, split.shape)}",
        table.html(),
        _pictures(split, rows, [f"{label}" for label in split.labels[rows].tolist()]),
    )


def data_card(data: _Data) -> str:
    images = sum(len(split) for split in data.splits.values())
    size = " × ".join(map(str, data.shape))
    rows = _one_of_each(data.train.labels)
    names = [data.classes[k] for k in data.train.labels[rows].tolist()]
    return card(
        f"{brief(data.name)}: {images:,} images, {size}, of {len(data.classes)} classes",
        data._table().html(),
        _pictures(data.train, rows, names),
        sentences([*data.notes, *Findings(data.findings).sentences], 4),
    )


def class_counts(classes: Sequence[str], labels: Mapping[str, Tensor]) -> ResultTable:
    """The number of images of each class in each split."""
    counts = [torch.bincount(y.cpu(), minlength=len(classes)).tolist() for y in labels.values()]
    return ResultTable(("class", *labels), list(zip(classes, *counts)))


def image_rows(labels: Tensor, columns: Mapping[str, NDArray[Any]]) -> ResultTable:
    """A row for each image: its label, and the columns that its source has."""
    values = [np.asarray(column).tolist() for column in columns.values()]
    return ResultTable(("label", *columns), list(zip(labels.tolist(), *values)))


def _one_of_each(labels: Tensor) -> Tensor:
    """The position of the first image of each of the first classes."""
    y = labels.cpu()
    present = torch.unique(y)[:PICTURES]
    return torch.tensor([int((y == k).nonzero()[0]) for k in present], dtype=torch.int64)


def _pictures(split: _Split, rows: Tensor, captions: Sequence[str]) -> Any:
    chosen = split.select(rows)
    return pictures(list(image_pixels(chosen.floats(chosen.images[:]))), captions)
