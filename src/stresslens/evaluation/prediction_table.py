"""Predictions that another program wrote: which column is which, and the rows as arrays."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from stresslens.core.answers import predicted
from stresslens.core.errors import ConfigError, DataError
from stresslens.core.spelling import closest
from stresslens.core.text import counted, enumeration
from stresslens.evaluation.prediction_columns import Columns, columns_of, is_list
from stresslens.evaluation.prediction_rows import TableRows, rows_of
from stresslens.evaluation.ranked_predictions import check_not_ranked, list_of_text
from stresslens.evaluation.scores import Predictions
from stresslens.evaluation.true_labels import TrueLabels, word_of

Scores: TypeAlias = NDArray[np.float32]

SUM = 1e-3
"""Probabilities of a row add up to 1 but for this rounding."""
TINY = 1e-30
"""A probability of 0 counts as this one, so that its logarithm is finite."""
STATED = 0.01
"""At most this share of the predictions may differ from the highest scores, as those of rounded scores."""
VALUES = 100
"""A column with more different values is no slice."""


@dataclass(frozen=True)
class PredictionTable:
    """Predictions of N images in K classes.

    `scores` (N, K) are logits, or of kind "answers" 1 for the class that is predicted and 0 elsewhere, where
    the file has no scores. `names` are empty where the file does not say which image is in which row.
    """

    source: Path
    names: tuple[str, ...]
    labels: NDArray[np.int64]
    scores: Scores
    kind: Literal["logits", "answers"]
    classes: tuple[str, ...]
    columns: Mapping[str, NDArray[Any]]
    """(N,) further columns of few values, whose groups of images are slices."""
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def predictions(self) -> Predictions:
        """The scores and labels."""
        return Predictions(self.scores.astype(np.float64), self.labels, np.arange(len(self)), self.kind)

    def select(self, rows: NDArray[np.int64]) -> PredictionTable:
        columns = {name: values[rows] for name, values in self.columns.items()}
        names = tuple(self.names[k] for k in rows) if self.names else ()
        return replace(self, names=names, labels=self.labels[rows], scores=self.scores[rows], columns=columns)


def read_predictions(
    path: Path,
    *,
    columns: Mapping[str, str] | None = None,
    labels: TrueLabels | None = None,
    classes: Sequence[str] | None = None,
) -> PredictionTable:
    """The predictions in a file (`rows_of` says which formats).

    `columns` gives the columns with other names than the usual ones, by what they hold (`name`, `label`,
    `prediction`, `scores`). `labels` are the true classes for a file without them. `classes` are all class
    names in the order of the scores.

    A row of scores that are not negative and add up to 1 is one of probabilities; rows with negative
    scores or scores above 1 are logits. Rows of the same name and content count once.

    Raises DataError, with the line, for a file without rows, without labels, with labels that are no class,
    with scores that are neither, and for rows of the same name that differ; ConfigError for a column that
    is not there.
    """
    reader = _Reader(path, dict(columns or {}), labels, classes)
    for rows in rows_of(path):
        reader.add(rows)
    return _without_repetitions(reader.table())


class _Reader:
    """Collects the rows of a file, each column in as little memory as it needs."""

    def __init__(
        self,
        path: Path,
        given: dict[str, str],
        labels: TrueLabels | None,
        classes: Sequence[str] | None,
    ) -> None:
        self.path, self.given, self.truth, self.all_classes = path, given, labels, classes
        self.columns: Columns | None = None
        self.names: list[str] = []
        self.words: dict[str, int] = {}
        """Each label and prediction, with its number."""
        self.labels: list[NDArray[np.int64]] = []
        self.predictions: list[NDArray[np.int64]] = []
        self.scores: list[Scores] = []
        self.stated: list[str] = []
        """The predicted classes of a file with scores, which must agree with them."""
        self.further: dict[str, list[Any]] = {}
        self.values: dict[str, set[Any]] = {}
        self.notes: list[str] = []

    def add(self, rows: TableRows) -> None:
        if self.columns is None:
            self.columns = columns_of(self.path, rows.columns, self.given, has_truth=self.truth is not None)
            one = self.columns
            taken = {*one.scores, one.name, one.label, one.prediction, one.stated}
            self.further = {name: [] for name in rows.columns if name not in taken}
            self.values = {name: set() for name in self.further}
        found, n = self.columns, len(rows.places)
        needed = (found.name, found.label, found.prediction, *found.scores)
        if missing := [name for name in needed if name is not None and name not in rows.columns]:
            raise DataError(f"{self._line(rows, 0)}: from here on there is no {missing[0]!r}")
        names = self._words(rows, found.name, "the name of an image") if found.name else []
        self.names += names
        if found.label is not None:
            self.labels.append(self._numbers(rows, found.label))
        elif self.truth is not None:
            self.labels.append(self._looked_up(names, n, self.truth))
        if found.stated is not None:
            self.stated += [word_of(value) for value in rows.columns.get(found.stated, ())]
        if found.prediction is not None:
            self.predictions.append(self._numbers(rows, found.prediction))
        if found.scores:
            self.scores.append(self._of_scores(rows))
        for name in list(self.further):
            values = [str(value) for value in rows.columns.get(name, [""] * n)]
            self.values[name].update(values)
            if len(self.values[name]) > VALUES:
                del self.further[name], self.values[name]
            else:
                self.further[name] += values

    def _line(self, rows: TableRows, k: int) -> str:
        return f"{self.path}:{rows.places[k]}"

    def _words(self, rows: TableRows, column: str, what: str) -> list[str]:
        """The values of a column as text, none of them empty."""
        values = rows.columns[column]
        if is_list(values):
            values = self._of_one_hot(rows, column)
        words = ["" if value != value else word_of(value) for value in values]  # a NaN is no word
        if "" in words:
            place = self._line(rows, words.index(""))
            raise DataError(f"{place}: the column {column!r} is empty; it holds {what}")
        return words

    def _of_one_hot(self, rows: TableRows, column: str) -> NDArray[np.int64]:
        """The classes of a column that holds one-hot rows (n, K)."""
        values = _floats(rows.columns[column])
        if values.ndim != 2 or not np.isin(values, (0, 1)).all() or (values.sum(1) != 1).any():
            raise DataError(f"{self._line(rows, 0)}: the column {column!r} holds lists that are not one-hot")
        return np.nonzero(values)[1]

    def _numbers(self, rows: TableRows, column: str) -> NDArray[np.int64]:
        """The classes of a column as numbers of `words`."""
        words = self._words(rows, column, "a class")
        return np.array([self.words.setdefault(word, len(self.words)) for word in words], np.int64)

    def _looked_up(self, names: Sequence[str], rows: int, truth: TrueLabels) -> NDArray[np.int64]:
        """The true classes of the next rows, as numbers of `words`."""
        start = sum(map(len, self.labels))
        found = truth.of_names(names, self.path) if names else truth.of_rows(start, start + rows, self.path)
        return np.array([self.words.setdefault(word, len(self.words)) for word in found])

    def _of_scores(self, rows: TableRows) -> Scores:
        """(n, K) scores; what is empty or no number is NaN where the file says nan, and refused else."""
        assert self.columns is not None
        parts = []
        for name in self.columns.scores:
            values = rows.columns[name]
            if not isinstance(values, np.ndarray) and None in values:
                place = self._line(rows, list(values).index(None))
                raise DataError(f"{place}: the column {name!r} has no score")
            try:
                parts.append(_floats(values))
            except (ValueError, TypeError):
                bad = next((k for k, value in enumerate(values) if not _is_number(value)), None)
                if bad is None:
                    raise DataError(f"{self.path}: its rows have different numbers of scores") from None
                raise DataError(
                    f"{self._line(rows, bad)}: {str(values[bad])[:40]!r} in the column {name!r} is no score"
                ) from None
        found = parts[0] if parts[0].ndim == 2 else np.stack(parts, 1)
        if self.scores and found.shape[1] != self.scores[0].shape[1]:
            raise DataError(f"{self.path}: its rows have different numbers of scores")
        return found

    def table(self) -> PredictionTable:
        found = self.columns
        if found is None:
            raise DataError(f"{self.path} has no rows")
        words = list(self.words)
        labels = np.concatenate(self.labels)
        if self.truth is not None and self.truth.in_order and len(labels) < len(self.truth.in_order):
            more = f"{self.truth.source} has {len(self.truth.in_order):,} labels"
            raise DataError(f"{self.path} has {len(labels):,} rows, and {more}")
        if not self.scores:
            classes = self._known(list(self.all_classes or _sorted(words)), words)
            number = _places(words, classes)
            answers = number[np.concatenate(self.predictions)]
            scores = np.zeros((len(labels), len(classes)), np.float32)
            scores[np.arange(len(labels)), answers] = 1
            notes = ("the file has answers and no scores, so nothing is known of probabilities and ranks",)
            return self._made(number[labels], scores, "answers", classes, notes)
        scores = np.concatenate(self.scores)
        classes, number = self._classes(scores.shape[1], words)
        self._check_stated(scores, classes)
        logits, note = as_logits(scores, self.path)
        return self._made(number[labels], logits, "logits", classes, (note, *self.notes))

    def _check_stated(self, scores: Scores, classes: Sequence[str]) -> None:
        """Raises DataError where the file's own predictions are not the classes of its highest scores."""
        if len(self.stated) < len(scores):
            return
        if set(self.stated) <= set(classes):
            stated = _places(self.stated, classes)
        elif all(map(_is_count, self.stated)) and max(map(int, self.stated)) < len(classes):
            stated = np.array([int(word) for word in self.stated])
        else:
            return
        best = np.take_along_axis(scores, stated[:, None], 1)[:, 0]
        differ = np.flatnonzero(best < scores.max(1))
        if len(differ) > STATED * len(scores):
            k = int(differ[0])
            best_class = classes[int(predicted(scores[k : k + 1])[0])]
            raise DataError(
                f"{self.path}: in {len(differ)} of {len(scores)} rows the highest score is not that of the "
                f"predicted class (row {k + 1}: {best_class}, and the file says "
                f"{self.stated[k]}); give the classes in the order of the scores (--classes)"
            )

    def _made(
        self,
        labels: NDArray[np.int64],
        scores: Scores,
        kind: Literal["logits", "answers"],
        classes: Sequence[str],
        notes: tuple[str, ...],
    ) -> PredictionTable:
        if len(classes) < 2:
            raise DataError(
                f"{self.path}: all rows have one class ({classes[0]}); a classifier has two or more"
            )
        further = {name: np.array(values, dtype=object) for name, values in self.further.items()}
        return PredictionTable(
            self.path, tuple(self.names), labels, scores, kind, tuple(classes), further, notes
        )

    def _known(self, classes: list[str], words: Sequence[str]) -> list[str]:
        known = set(classes)
        if strange := [word for word in words if word not in known]:
            raise DataError(
                f"{self.path}: the label {strange[0]!r} is no class; {closest(strange[0], classes)}"
            )
        return classes

    def _classes(self, k: int, words: Sequence[str]) -> tuple[list[str], NDArray[np.int64]]:
        """The classes in the order of the scores, and the class of each word. Numbers count the columns of
        scores from 0, unless the classes have these names."""
        assert self.columns is not None
        classes = list(self.all_classes or self.columns.classes)
        numbered = not self.all_classes and all(map(_is_count, classes))
        spoken = [word for word in words if not _is_count(word)]
        if numbered and spoken and len(words) != k:
            raise ConfigError(
                f"{self.path} has {k} scores and the labels {enumeration(_sorted(words))}; give the "
                "classes in the order of the scores (--classes cat,dog,…)"
            )
        if numbered and spoken:
            classes = _sorted(words)
            self.notes.append(f"the scores are taken to be in the order {enumeration(classes)} (--classes)")
        elif not classes:
            classes = [str(number) for number in range(k)]
        if len(classes) != k:
            raise ConfigError(f"{self.path} has {k} scores of each image, and {len(classes)} classes")
        if spoken or set(words) <= set(classes):
            self._known(classes, words)
            return classes, _places(words, classes)
        largest = max(map(int, words))
        if largest >= k:
            raise DataError(f"{self.path}: the label {largest} is no class; {k} classes count from 0")
        if numbered:
            raise DataError(
                f"{self.path}: the scores are numbered {classes[0]} to {classes[-1]}, and labels are 0; give "
                "the classes in the order of the scores (--classes 0,1,…)"
            )
        return classes, np.array([int(word) for word in words])


def as_logits(scores: Scores, source: Path) -> tuple[Scores, str]:
    """Logits (N, K) of scores that are probabilities or logits, and in words what they are. Raises DataError
    for scores that are neither."""
    known = np.isfinite(scores).all(1)
    rows = scores[known]
    if not len(rows):
        raise DataError(f"{source}: no row has scores that are all numbers")
    check_not_ranked(source, rows)
    sums = rows.sum(1)
    if rows.min() >= -SUM and (np.abs(sums - 100) < 100 * SUM).all():
        raise DataError(f"{source}: the scores of each row add up to 100; divide percentages by 100")
    if rows.min() < -SUM or rows.max() > 1 + SUM:
        return scores, "the scores are logits: some are negative or above 1"
    wrong = np.flatnonzero(np.abs(sums - 1) > SUM)
    if len(wrong):
        row = int(np.flatnonzero(known)[wrong[0]])
        raise DataError(
            f"{source}: {len(wrong)} of {len(rows)} rows of scores do not add up to 1 (row {row + 1}: "
            f"{sums[wrong[0]]:.4g}), so they are no probabilities, and none is negative or above 1, so "
            "they are no logits; write the output of softmax, or the logits themselves"
        )
    zero = int((scores[known] == 0).any(1).sum())
    said = f"; {zero} rows have a probability of 0, which counts as {TINY:g}" if zero else ""
    return np.log(np.maximum(scores, np.float32(TINY))), f"the scores are probabilities{said}"


def _places(words: Sequence[str], classes: Sequence[str]) -> NDArray[np.int64]:
    """The place of each word among the classes."""
    place = {name: k for k, name in enumerate(classes)}
    return np.array([place[word] for word in words], np.int64)


def _floats(values: Any) -> Scores:
    if isinstance(values, np.ndarray):
        return values.astype(np.float32)
    if is_list(values):
        values = [list_of_text(value) for value in values]
    return np.array(values, dtype=np.float32)


def _is_number(value: Any) -> bool:
    try:
        _floats([value])
    except (ValueError, TypeError):
        return False
    return value is not None


def _sorted(words: Sequence[str]) -> list[str]:
    """Class names in order, numbers by their value."""

    def place(word: str) -> tuple[bool, int, str]:
        number = re.fullmatch(r"-?[0-9]{1,18}", word) is not None
        return (not number, int(word) if number else 0, word)

    return sorted(words, key=place)


def _is_count(word: str) -> bool:
    """Whether a word is a number that can count classes."""
    return re.fullmatch(r"[0-9]{1,18}", word) is not None


def _without_repetitions(table: PredictionTable) -> PredictionTable:
    """The table with each name once. Raises DataError where rows of one name differ."""
    first: dict[str, int] = {}
    again = []
    for k, name in enumerate(table.names):
        if first.setdefault(name, k) != k:
            again.append(k)
    if not again:
        return table
    for k in again:
        one = first[table.names[k]]
        same = np.array_equal(table.scores[k], table.scores[one], equal_nan=True)
        if table.labels[k] != table.labels[one] or not same:
            raise DataError(
                f"{table.source}: {table.names[k]} is in two rows ({one + 1} and {k + 1}) with different "
                "values"
            )
    kept = np.delete(np.arange(len(table)), again)
    rows = counted(len(again), "row repeats", "rows repeat")
    note = f"{rows} another; each image counts once"
    return replace(table.select(kept), notes=(*table.notes, note))
