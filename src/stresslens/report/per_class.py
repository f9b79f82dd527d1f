"""Confusion matrices, recall and scores of each class."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import TypeVar

from stresslens.core.answers import NO_ANSWER
from stresslens.core.format import footnote
from stresslens.core.text import NOT_FINITE
from stresslens.core.types import Estimate
from stresslens.metrics.random_effects import over_seeds
from stresslens.report.load import Run, StudyFolder, VariantRuns
from stresslens.report.summary import headline

MATRIX_CLASSES = 20
RUN_MATRIX_CLASSES = 40
MATRIX_CELLS = 8_000
PAIRS = 20
CELLS = 1_500
COLUMNS = 12
ROWS = 400
"""Classes in the table of a run."""
ALREADY = {
    ("Macro", "Precision, %"): "macro_precision",
    ("Macro", "F1, %"): "macro_f1",
    ("Weighted", "Precision, %"): "weighted_precision",
    ("Weighted", "F1, %"): "weighted_f1",
    ("Macro", "Recall, %"): "balanced_accuracy",
    ("Macro", "AUROC"): "auroc",
    ("Macro", "AUPRC"): "auprc",
    ("Weighted", "Recall, %"): "accuracy",
}
"""Averages over the classes that are scores of the run themselves, with an interval of their own."""

Row = TypeVar("Row")


@dataclass(frozen=True)
class Pair:
    """`n` of the `images` of class `truth` were predicted as `predicted` (or had no answer);
    `pictured` says that the page shows such images."""

    truth: int
    predicted: int
    n: int
    images: int
    pictured: bool = False

    @property
    def shade(self) -> int:
        """The cell's share of the row, from 0 to 9."""
        return math.ceil(9 * self.n / max(1, self.images))


@dataclass(frozen=True)
class Confusion:
    """Counts summed over seeds: as a matrix of rows, or, if that would be too large, as the pairs
    confused most often."""

    variant: VariantRuns | None
    seeds: int
    classes: Sequence[str]
    columns: Sequence[str]
    """The classes, and behind them `NOT_FINITE` if some images have no answer."""
    images: int
    rows: Sequence[Sequence[Pair]]
    pairs: Sequence[Pair]


def confusions(study: StudyFolder) -> list[Confusion]:
    """One confusion matrix for each variant, pooled over its finished seeds."""
    all_confusions = []
    room = MATRIX_CELLS
    for variant in headline(study):
        runs = [run for run in variant.finished if study.split in run.record.confusion]
        runs = [run for run in runs if run.classes == runs[0].classes]
        if not runs:
            continue
        classes = runs[0].classes
        total = [
            [sum(row) for row in zip_longest(*rows, fillvalue=0)]  # some have a column for no answer
            for rows in zip(*(run.record.confusion[study.split] for run in runs))
        ]
        fits = len(classes) <= MATRIX_CLASSES and len(classes) ** 2 <= room
        room -= len(classes) ** 2 if fits else PAIRS
        all_confusions.append(_confusion(variant, len(runs), classes, total, fits, set()))
    return all_confusions


def run_confusion(run: Run, split: str, pictured: Collection[tuple[int, int]]) -> Confusion | None:
    """The confusion of one run; `pictured` are the pairs (truth, predicted) that its gallery
    shows."""
    counts = run.record.confusion.get(split)
    fits = len(run.classes) <= RUN_MATRIX_CLASSES
    return _confusion(None, 1, run.classes, counts, fits, pictured) if counts else None


def _confusion(
    variant: VariantRuns | None,
    seeds: int,
    classes: Sequence[str],
    counts: Sequence[Sequence[int]],
    fits: bool,
    pictured: Collection[tuple[int, int]],
) -> Confusion:
    sums = [sum(row) for row in counts]

    def pair(i: int, j: int) -> Pair:
        k = j if j < len(classes) else NO_ANSWER
        return Pair(i, k, counts[i][j], sums[i], i != k and (i, k) in pictured)

    rows: list[list[Pair]] = []
    pairs: list[Pair] = []
    if fits:
        rows = [[pair(i, j) for j in range(len(counts[i]))] for i in range(len(classes))]
    else:
        wrong = [(-n, i, j) for i, row in enumerate(counts) for j, n in enumerate(row) if n and i != j]
        pairs = [pair(i, j) for _, i, j in sorted(wrong)[:PAIRS]]
    columns = [*classes, NOT_FINITE] if counts and len(counts[0]) > len(classes) else classes
    return Confusion(variant, seeds, classes, columns, sum(sums), rows, pairs)


@dataclass(frozen=True)
class Recalls:
    """Recall of each class for each variant, over its seeds; the counts say how much was left out
    for lack of room."""

    variants: Sequence[VariantRuns]
    rows: Sequence[tuple[str, int, Sequence[Estimate | None]]]
    classes_left_out: int
    variants_left_out: int

    def column(self, place: int) -> list[Estimate | None]:
        """The recalls of one variant."""
        return [estimates[place] for _, _, estimates in self.rows]


def recall_table(study: StudyFolder) -> Recalls | None:
    candidates = [
        variant
        for variant in headline(study)
        if any(study.split in run.record.per_class for run in variant.finished)
    ]
    shown = [r.shown for r in candidates[:1] if r.shown]
    if not shown:
        return None
    classes = shown[0].classes
    same = [variant for variant in candidates if all(run.classes == classes for run in variant.finished)]
    columns = same[:COLUMNS]
    tables = [
        [run.record.per_class[study.split] for run in r.finished if study.split in run.record.per_class]
        for r in columns
    ]
    rows = []
    for k, name in enumerate(classes):
        seeds = [
            [table.recall[k] for table in variant if math.isfinite(table.recall[k].value)]
            for variant in tables
        ]
        rows.append((name, tables[0][0].support[k], [over_seeds(each, bounded=True) for each in seeds]))
    kept, left_out = _worst(rows, max(10, CELLS // len(columns)), lambda row: [e.value for e in row[2] if e])
    return Recalls(columns, kept, left_out, len(candidates) - len(columns))


@dataclass(frozen=True)
class ClassTable:
    """Every class of a run; `left_out` is the number of classes of higher F1 that did not fit."""

    columns: Sequence[str]
    rows: Sequence[tuple[str, int, Sequence[Estimate]]]
    left_out: int
    note: str
    averages: Sequence[tuple[str, Sequence[Estimate]]]
    images: int


def class_table(run: Run, split: str) -> ClassTable | None:
    table = run.record.per_class.get(split)
    if table is None:
        return None
    titles = {"Precision, %": table.precision, "Recall, %": table.recall, "F1, %": table.f1}
    titles |= {"AUROC": table.auroc, "AUPRC": table.auprc}
    columns = {title: values for title, values in titles.items() if values}
    rows = list(zip(run.classes, table.support, list(zip(*columns.values()))))
    kept, left_out = _worst(rows, ROWS, lambda row: [row[2][2].value])
    note = footnote(e for values in columns.values() for e in values)
    scores = run.record.scores.get(split, {})
    averages = [
        (
            f"{kind} average",
            [
                scores.get(ALREADY.get((kind, title), "")) or _average(values, weights)
                for title, values in columns.items()
            ],
        )
        for kind, weights in (("Macro", [1] * len(table.support)), ("Weighted", table.support))
    ]
    return ClassTable(list(columns), kept, left_out, note, averages, sum(table.support))


def _average(values: Sequence[Estimate], weights: Sequence[int]) -> Estimate:
    """The mean of the classes that have a value; the variances of their intervals add up, as if the
    classes were independent."""
    known = [(e, w) for e, w in zip(values, weights) if math.isfinite(e.value) and w]
    total = sum(w for _, w in known)
    n = sum(e.n for e in values)
    if not total:
        return Estimate(math.nan, math.nan, math.nan, n, "none")
    value = math.fsum(w * e.value for e, w in known) / total
    low, high = (
        math.sqrt(math.fsum((w * (getattr(e, end) - e.value)) ** 2 for e, w in known)) / total
        for end in ("low", "high")
    )
    return Estimate(value, max(0.0, value - low), min(1.0, value + high), n, "MOVER over the classes")


def _worst(rows: list[Row], limit: int, values: Callable[[Row], Sequence[float]]) -> tuple[list[Row], int]:
    """The rows in their order, or, if there are more than `limit`, those of the lowest mean value;
    and how many were left out."""

    def mean(row: Row) -> float:
        known = [value for value in values(row) if math.isfinite(value)]
        return math.fsum(known) / len(known) if known else -1.0

    return (rows, 0) if len(rows) <= limit else (sorted(rows, key=mean)[:limit], len(rows) - limit)
