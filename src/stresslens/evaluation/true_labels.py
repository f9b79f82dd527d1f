"""True labels of images from a file of their own, for predictions without labels."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from stresslens.core.errors import DataError
from stresslens.core.text import enumeration
from stresslens.evaluation.prediction_columns import columns_of
from stresslens.evaluation.prediction_rows import rows_of


@dataclass(frozen=True)
class TrueLabels:
    """The class of each image by its name, or `in_order` where the file names no images."""

    source: Path
    by_name: Mapping[str, str] = field(default_factory=dict)
    in_order: Sequence[str] = ()
    _shorter: dict[Callable[[str], str], Mapping[str, str]] = field(default_factory=dict, repr=False)

    def of_names(self, names: Sequence[str], where: Path) -> list[str]:
        """The labels of images by their names. Where none of these is known as it is, by the names of
        their files without folders, or without the ending, if these are unique. Raises DataError."""
        for short in SHORTER:
            known = self._by(short)
            if any(short(name) in known for name in names):
                break
        if missing := [name for name in names if short(name) not in known]:
            raise DataError(f"{len(missing)} of the images of {where} have no label: {enumeration(missing)}")
        return [known[short(name)] for name in names]

    def of_rows(self, start: int, stop: int, where: Path) -> list[str]:
        """The labels of rows `start` to `stop` of a file without names. Raises DataError."""
        if self.by_name:
            raise DataError(f"{where} has no column of file names, by which labels could be found")
        if stop > len(self.in_order):
            raise DataError(f"{where} has more rows than {self.source} has labels ({len(self.in_order):,})")
        return list(self.in_order[start:stop])

    def _by(self, short: Callable[[str], str]) -> Mapping[str, str]:
        """The labels by shorter names; empty where two images have one."""
        if short not in self._shorter:
            names = [short(name) for name in self.by_name]
            unique = len(set(names)) == len(names)
            self._shorter[short] = dict(zip(names, self.by_name.values())) if unique else {}
        return self._shorter[short]


def _file_name(name: str) -> str:
    return PurePosixPath(name.replace("\\", "/")).name


SHORTER: Sequence[Callable[[str], str]] = (str, _file_name, lambda name: PurePosixPath(_file_name(name)).stem)
"""Names of images as they are, of their files without folders, and without the ending."""


def read_labels(path: Path) -> TrueLabels:
    """The true class of each image by its name, from a file with both columns; or in order, from a file
    without names (an array, or a column of labels). Raises DataError."""
    found: dict[str, str] = {}
    ordered: list[str] = []
    for rows in rows_of(path):
        plain = columns_of(path, rows.columns, {}, only_labels=True)
        assert plain.label is not None
        words = [word_of(label) for label in rows.columns[plain.label]]
        names = None if plain.name is None else [word_of(name) for name in rows.columns[plain.name]]
        for k, word in enumerate(words):
            place = f"{path}:{rows.places[k]}"
            if not word:
                raise DataError(f"{place}: the label is empty")
            if names is None:
                continue
            if not names[k]:
                raise DataError(f"{place}: the name is empty")
            if found.setdefault(names[k], word) != word:
                raise DataError(f"{place}: {names[k]} has two labels, {found[names[k]]} and {word}")
        ordered += words if names is None else []
    return TrueLabels(path, found, ordered)


def word_of(value: Any) -> str:
    """A label or a name as text: 3, 3.0 and "3" are one."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", errors="replace")
    if isinstance(value, float | np.floating) and float(value).is_integer():
        value = int(value)
    word = "" if value is None else str(value).strip()
    return word[:-2] if re.fullmatch(r"\d+\.0", word) else word
