"""What a run's record holds of one split, each part as a small object."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stresslens.api.found_slices import SlicesOfSplit
from stresslens.api.named_scores import Scores
from stresslens.charts.chart import Chart, card_with_charts, distinct
from stresslens.charts.heat_charts import heat_chart
from stresslens.core.cards import card, sentences
from stresslens.core.tables import Percent, ResultTable, RowTable
from stresslens.core.text import NOT_FINITE, counted
from stresslens.core.types import Estimate
from stresslens.evaluation.record import BinRecord, RunRecord, SliceRecord
from stresslens.report.curves import reliability_chart, risk_coverage_chart

MOST_CLASSES, MOST_PAIRS = 40, 6
"""Classes up to which a matrix is drawn in a card, and pairs that are named."""


@dataclass(frozen=True, eq=False, repr=False)
class ConfusionMatrix(RowTable):
    """`counts` (K, K) has a row for each true class and a column for each predicted one. A further
    column counts images without an answer, if there are any."""

    counts: NDArray[np.int64]
    classes: tuple[str, ...]
    split: str

    def __repr__(self) -> str:
        return f"ConfusionMatrix({self._said})"

    def _repr_html_(self) -> str:
        chart = [self.plot()] if len(self.classes) <= MOST_CLASSES else []
        confused = [f"{truth} as {answer}: {n:,} of {of:,}" for truth, answer, n, of in self._confused]
        lead = f"Confusion on {self.split}: {self._said}"
        return card_with_charts(lead, *chart, sentences(confused))

    def plot(self) -> Chart:
        """The counts as a heat map, shaded by the share of each true class; without the numbers where
        there are many classes."""
        return heat_chart(
            self.counts, self.classes, self.columns, title=f"Confusion on {self.split}", x_label="predicted"
        )

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns."""
        return (*self.classes, NOT_FINITE)[: self.counts.shape[1]]

    @property
    def _confused(self) -> list[tuple[str, str, int, int]]:
        """The pairs that are confused most often: truth, answer, images, images of the true class."""
        rows = self.counts.tolist()
        wrong = sorted((-n, i, j) for i, row in enumerate(rows) for j, n in enumerate(row) if n and i != j)
        return [(self.classes[i], self.columns[j], -n, sum(rows[i])) for n, i, j in wrong[:MOST_PAIRS]]

    @property
    def _said(self) -> str:
        n, right = int(self.counts.sum()), int(np.trace(self.counts))
        return f"{right:,} of {counted(n, 'image')} right, {n - right:,} wrong, {len(self.classes)} classes"

    def _table(self) -> ResultTable:
        cells = [(name, *row) for name, row in zip(self.classes, self.counts.tolist())]
        return ResultTable(("truth", *distinct(self.columns)), cells)


@dataclass(frozen=True, repr=False)
class ReliabilityDiagram(RowTable):
    """The accuracy of the images in each bin of the highest probability, as it is, and `calibrated`,
    after temperature scaling; None where no temperature was fitted."""

    bins: Sequence[BinRecord]
    calibrated: Sequence[BinRecord] | None
    split: str

    def __repr__(self) -> str:
        return f"ReliabilityDiagram({self._said})"

    def _repr_html_(self) -> str:
        return card_with_charts(f"Reliability on {self.split}: {self._said}", self.plot())

    def plot(self) -> Chart:
        """Accuracy over the predicted probability, with the intervals of the bins."""
        return reliability_chart(self.bins, self.calibrated)

    @property
    def _said(self) -> str:
        after = "" if self.calibrated is None else ", also after temperature scaling"
        return f"{sum(b.n for b in self.bins):,} images in {sum(b.n > 0 for b in self.bins)} bins{after}"

    def _table(self) -> ResultTable:
        named = [("as trained", self.bins), ("after temperature scaling", self.calibrated or [])]
        cells = [
            (name, b.low, b.high, b.n, b.confidence, None if b.accuracy is None else Percent(b.accuracy))
            for name, bins in named
            for b in bins
        ]
        columns = ("probabilities", "from", "to", "images", "mean probability", "accuracy")
        return ResultTable(columns, cells)


@dataclass(frozen=True, repr=False)
class RiskCoverageCurve(RowTable):
    """`risk` is the share of errors among the most confident `coverage` of the images; None where it
    is not known."""

    coverage: Sequence[float]
    risk: Sequence[float | None]
    split: str

    def __repr__(self) -> str:
        return f"RiskCoverageCurve({counted(len(self.coverage), 'point')} on {self.split})"

    def _repr_html_(self) -> str:
        return card_with_charts("", self.plot())

    def plot(self) -> Chart:
        """The share of errors over the share of images that are classified."""
        return risk_coverage_chart(self.coverage, self.risk)

    def _table(self) -> ResultTable:
        return ResultTable(("coverage", "risk"), list(zip(self.coverage, self.risk)))


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


@dataclass(frozen=True, repr=False)
class ClassTable(RowTable):
    """A row for each class."""

    rows: Sequence[ClassRow]
    split: str

    def __repr__(self) -> str:
        return f"ClassTable({len(self.rows)} classes on {self.split})"

    def _repr_html_(self) -> str:
        return card(f"Scores of each class on {self.split}", self._table().html())

    def _table(self) -> ResultTable:
        columns = ("class", "images", "precision", "recall", "f1", "auroc", "auprc")
        cells = [
            (
                *(r.name, r.support, Percent(r.precision), Percent(r.recall), Percent(r.f1)),
                *(r.auroc, r.auprc),
            )
            for r in self.rows
        ]
        return ResultTable(columns, cells)


class SplitResults:
    """The results of a run on one split, as its record holds them. A part that the record lacks is
    None; of slices there is then an empty list."""

    def __init__(self, record: RunRecord, split: str) -> None:
        self._record, self.split = record, split

    def __repr__(self) -> str:
        return f"SplitResults({self.split}: {self.scores})"

    def _repr_html_(self) -> str:
        return self.scores._repr_html_()

    @property
    def scores(self) -> Scores:
        """Each named score with its interval."""
        return Scores(self._record.scores[self.split])

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
        unknown: list[Estimate | None] = [None] * k
        auroc, auprc = found.auroc or unknown, found.auprc or unknown
        columns = zip(found.support, found.precision, found.recall, found.f1, auroc, auprc)
        rows = [ClassRow(name, *values) for name, values in zip(self._record.classes, columns)]
        return ClassTable(rows, self.split)

    @property
    def slices(self) -> list[SliceRecord]:
        """The accuracies of groups of images, such as the bright and the dark ones."""
        return list(self._record.slices.get(self.split, []))

    @property
    def found_slices(self) -> SlicesOfSplit | None:
        """The slices of low accuracy that `run.find_slices` found; None where they were not searched."""
        found = self._record.found_slices.get(self.split)
        return None if found is None else SlicesOfSplit(found, tuple(self._record.classes), self.split)
