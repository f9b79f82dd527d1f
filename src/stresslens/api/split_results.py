"""What a run's record holds of one split, each part as a small object."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stresslens.core.types import Estimate
from stresslens.evaluation.record import BinRecord, RunRecord, SliceRecord


@dataclass(frozen=True, eq=False)
class ConfusionMatrix:
    """`counts` (K, K) has a row for each true class and a column for each predicted one. A further
    column counts images without an answer, if there are any."""

    counts: NDArray[np.int64]
    classes: tuple[str, ...]
    split: str


@dataclass(frozen=True)
class ReliabilityDiagram:
    """The accuracy of the images in each bin of the highest probability, as it is, and `calibrated`,
    after temperature scaling; None where no temperature was fitted."""

    bins: Sequence[BinRecord]
    calibrated: Sequence[BinRecord] | None
    split: str


@dataclass(frozen=True)
class RiskCoverageCurve:
    """`risk` is the share of errors among the most confident `coverage` of the images; None where it
    is not known."""

    coverage: Sequence[float]
    risk: Sequence[float | None]
    split: str


@dataclass(frozen=True)
class ClassRow:
    """The scores of one class; `support` is its number of images. AUROC and AUPRC are None where the
    record does not have them."""

    name: str
    support: int
    precision: Estimate
    recall: Estimate
    f1: Estimate
    auroc: Estimate | None = None
    auprc: Estimate | None = None


@dataclass(frozen=True)
class ClassTable:
    """A row for each class."""

    rows: Sequence[ClassRow]
    split: str


class SplitResults:
    """The results of a run on one split, as its record holds them. A part that the record lacks is
    None; of slices there is then an empty list."""

    def __init__(self, record: RunRecord, split: str) -> None:
        self._record, self.split = record, split

    @property
    def scores(self) -> dict[str, Estimate]:
        """Each named score with its interval."""
        return dict(self._record.scores[self.split])

    @property
    def confusion(self) -> ConfusionMatrix | None:
        counts = self._record.confusion.get(self.split)
        if counts is None:
            return None
        return ConfusionMatrix(np.array(counts), tuple(self._record.classes), self.split)

    @property
    def reliability(self) -> ReliabilityDiagram | None:
        found = self._record.reliability.get(self.split)
        return None if found is None else ReliabilityDiagram(found.bins, found.calibrated, self.split)

    @property
    def risk_coverage(self) -> RiskCoverageCurve | None:
        found = self._record.risk_coverage.get(self.split)
        return None if found is None else RiskCoverageCurve(found.coverage, found.risk, self.split)

    @property
    def per_class(self) -> ClassTable | None:
        found = self._record.per_class.get(self.split)
        if found is None:
            return None
        k = len(found.support)
        auroc, auprc = found.auroc or [None] * k, found.auprc or [None] * k
        columns = zip(found.support, found.precision, found.recall, found.f1, auroc, auprc)
        rows = [ClassRow(name, *values) for name, values in zip(self._record.classes, columns)]
        return ClassTable(rows, self.split)

    @property
    def slices(self) -> list[SliceRecord]:
        """The accuracies of groups of images, such as the bright and the dark ones."""
        return list(self._record.slices.get(self.split, []))
