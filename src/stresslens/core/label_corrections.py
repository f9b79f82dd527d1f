"""Corrections of labels: a CSV file that gives images of a data set another label, or drops them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stresslens.core.data import Data, Split
from stresslens.core.errors import DataError, naming
from stresslens.core.plain_rows import csv_rows
from stresslens.core.spelling import closest
from stresslens.core.splits import image_names

DROP = "drop"
"""In place of a label: the image is left out. A class of this name hides it."""


@dataclass(frozen=True)
class Correction:
    """A row of the file: the new label of an image, and the label that it had, if the file has it."""

    line: int
    image: str
    given: str | None
    label: str


@dataclass(frozen=True)
class LabelCorrections:
    """The rows of a file of corrections, by the names of the images (`core.splits.image_names`)."""

    file: Path
    rows: Sequence[Correction]

    @staticmethod
    def read(file: Path) -> LabelCorrections:
        """The corrections in a CSV file with the columns `file` and `label`; the column `given`, if there
        is one, holds the labels from before, and others are not looked at.

        Raises DataError, with the line, for a file that is no such table and for an image that is there
        twice.
        """
        wrong, seen = [], dict[str, int]()
        rows = []
        with naming("corrections"):
            lines = csv_rows(file, partial(_check_columns, file)).rows
        for line, row in lines:
            image, label = row["file"], row["label"]
            if not image or not label:
                wrong.append(f"{file}:{line}: no {'file' if not image else 'label'}")
            elif image in seen:
                wrong.append(f"{file}:{line}: {image} is listed again; it is in line {seen[image]} already")
            else:
                seen[image] = line
                rows.append(Correction(line, image, row.get("given") or None, label))
        if wrong:
            raise DataError("\n".join(wrong))
        return LabelCorrections(file, rows)

    def places(self, names: Sequence[str]) -> dict[int, Correction]:
        """The corrections by the places of their images among `names`. Raises DataError, with the lines,
        for an image that is not there, and for a name that several have."""
        where: dict[str, list[int]] = {}
        for place, name in enumerate(names):
            where.setdefault(name, []).append(place)
        wrong = []
        for row in self.rows:
            count = len(where.get(row.image, []))
            if not count:
                hint = (
                    closest(row.image, list(names)) if len(names) <= 2000 else f"among {len(names):,} images"
                )
                wrong.append(f"{self.file}:{row.line}: there is no image {row.image}; {hint}")
            elif count > 1:
                wrong.append(f"{self.file}:{row.line}: {count} images are called {row.image}")
        if wrong:
            raise DataError("\n".join(wrong))
        return {where[row.image][0]: row for row in self.rows}

    def of_labels(self, names: Sequence[str], labels: Tensor, classes: Sequence[str]) -> Tensor:
        """(N,) the corrected labels of images with these names and `labels` (N,); -1 for those that are
        dropped.

        Raises DataError as `places` does, for a label that is no class, and where `given` is another label
        than the image has.
        """
        numbers: Mapping[str, int] = {name: k for k, name in enumerate(classes)}
        corrected, wrong = labels.clone(), []
        for place, row in self.places(names).items():
            has = classes[int(labels[place])]
            if row.label not in numbers and row.label != DROP:
                hint = closest(row.label, list(classes))
                wrong.append(f"{self.file}:{row.line}: no class is called {row.label!r}; {hint}, or {DROP}")
            elif row.given is not None and row.given != has:
                wrong.append(
                    f"{self.file}:{row.line}: the label of {row.image} is {has!r} here, and not "
                    f"{row.given!r}; the corrections belong to other data, or to other options of them"
                )
            corrected[place] = numbers.get(row.label, -1)
        if wrong:
            raise DataError("\n".join(wrong))
        return corrected


def corrected_data(data: Data, corrections: LabelCorrections) -> Data:
    """The data set with corrected labels, without the images that are dropped, and with a note on both.

    Raises DataError as `LabelCorrections.of_labels` does, and where a split would lose all its images.
    """
    before = torch.cat([split.labels.cpu() for split in data.splits.values()])
    after = corrections.of_labels(image_names(data), before, data.classes)
    splits: dict[str, Split] = {}
    start = 0
    for name, split in data.splits.items():
        labels = after[start : start + len(split)].to(split.labels.device)
        start += len(split)
        kept = (labels >= 0).nonzero().flatten()
        if not len(kept):
            raise DataError(f"{corrections.file}: all {len(split)} {name} images of {data.name} are dropped")
        corrected = replace(split, labels=labels.clamp(min=0))
        splits[name] = corrected if len(kept) == len(split) else corrected.select(kept)
    changed, dropped = int(((after != before) & (after >= 0)).sum()), int((after < 0).sum())
    note = f"{corrections.file.name}: labels corrected: {changed}, images dropped: {dropped}"
    parts: dict[str, Any] = {**splits, "notes": (*data.notes, note)}
    return replace(data, **parts)


def _check_columns(file: Path, columns: Sequence[str]) -> None:
    for column in ("file", "label"):
        if columns.count(column) != 1:
            twice = column in columns
            how = "is there more than once" if twice else f"is missing: {closest(column, list(columns))}"
            raise DataError(f"{file}: corrections have the columns file and label; {column} {how}")
