"""Accuracy against training-set size, and the power law that the errors follow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from stresslens.charts.axes import linear_axis, log_axis
from stresslens.charts.chart import Chart
from stresslens.charts.curve_colours import DASHES, place_of
from stresslens.charts.line_charts import Series, line_chart
from stresslens.comparison.tested_run import tested_of
from stresslens.core.files import UnreadableRun
from stresslens.core.format import footnote, percent
from stresslens.core.types import Estimate
from stresslens.metrics.intervals import Floats
from stresslens.metrics.power_law import PowerLaw, power_law
from stresslens.report.load import StudyFolder, VariantRuns

ODD = 0.01
"""Below this p, the report says that the points do not follow a power law."""


@dataclass(frozen=True)
class Sizes:
    """A curve: accuracy at each training-set size, ascending, with the number of updates at
    each."""

    name: str
    place: int
    sizes: Sequence[int]
    accuracies: Sequence[Estimate]
    updates: Sequence[int | None]
    law: PowerLaw | None

    @property
    def errors(self) -> list[Estimate]:
        return [_error(e) for e in self.accuracies]

    @property
    def said(self) -> str:
        """The effect of more data, in words."""
        first, last = self.accuracies[0], self.accuracies[-1]
        accuracies = (
            f"{self.name}: {percent(first)} % with {self.sizes[0]:,} images, "
            f"{percent(last)} % with {self.sizes[-1]:,}."
        )
        if self.law is None:
            return accuracies
        e, tenfold, more = self.law.exponent, self.law.tenfold, self.law.error(2 * self.sizes[-1])
        interval = f"({_signed(-e.high)} to {_signed(-e.low)})"
        law = f" The errors follow size to the power {_signed(-e.value)} {interval}"
        if e.low <= 0:
            return accuracies + law + ": this does not show whether more data helps."
        law += f": ten times the data leaves {percent(tenfold)} % of them."
        if self.law.p < ODD:
            return (
                accuracies
                + law
                + f" They do not follow it closely (p = {self.law.p:.2g}), "
                + "so it says nothing about larger sizes."
            )
        return (
            accuracies
            + law
            + f" If the law continues, {2 * self.sizes[-1]:,} images give {percent(_error(more))} %."
        )


def _signed(power: float) -> str:
    return f"{power:+.2f}".replace("-", "−")


def _error(accuracy: Estimate) -> Estimate:
    return replace(accuracy, value=1 - accuracy.value, low=1 - accuracy.high, high=1 - accuracy.low)


@dataclass(frozen=True)
class DataSizeSection:
    curves: Sequence[Sizes]
    charts: Sequence[Chart]

    @property
    def intervals(self) -> str:
        return footnote(e for curve in self.curves for e in curve.accuracies)


def data_size_section(study: StudyFolder) -> DataSizeSection | None:
    """The data-size curves of a study, from the runs that are finished; None if no curve has two
    sizes."""
    variants = {variant.name: variant for variant in study.variants}
    curves = []
    for place, curve in enumerate(study.file.curves if study.file else []):
        finished, measured = [], []
        for size, name in sorted(curve.runs):
            variant = variants.get(name)
            accuracy = variant.score(study.split, "accuracy") if variant else None
            if variant and accuracy:
                steps = variant.mean(lambda run: run.record.training.steps)
                finished.append((size, accuracy, None if steps is None else round(steps)))
                measured.append(variant)
        if len(finished) > 1:
            sizes, accuracies, updates = zip(*finished)
            errors = [_error(e) for e in accuracies]
            law = power_law(sizes, errors, correlation=_correlation(measured, study.split))
            curves.append(Sizes(curve.name, place, sizes, accuracies, updates, law))
    return DataSizeSection(curves, _charts(curves, study.split)) if curves else None


def _correlation(variants: Sequence[VariantRuns], split: str) -> Floats | None:
    """(S, S) correlation of the errors at S sizes, from the images that they share.

    Each image's errors are averaged over the seeds of a size; what differs between seeds is
    independent. None if the predictions are not there, or are of different images.
    """
    try:
        tested = [[tested_of(run.folder, split) for run in variant.finished] for variant in variants]
    except UnreadableRun:
        return None
    if any(tested[0][0].mismatch(run) for seeds in tested for run in seeds):
        return None
    wrong = [np.stack([~run.right for run in seeds]).astype(float) for seeds in tested]
    n = wrong[0].shape[1]
    shared = np.cov([of.mean(0) for of in wrong]) / n
    own = [
        each.mean(1).var(ddof=1) / len(each) if len(each) > 1 else variance
        for each, variance in zip(wrong, np.diagonal(shared))
    ]
    deviation = np.sqrt(np.maximum(np.diagonal(shared), own))
    if not deviation.all():
        return None
    correlation = shared / (deviation[:, None] * deviation)
    np.fill_diagonal(correlation, 1.0)
    return np.asarray(correlation)


def _charts(curves: Sequence[Sizes], split: str) -> list[Chart]:
    x = log_axis([size for curve in curves for size in curve.sizes])
    accuracy = [
        Series(c.name, _points(c.sizes, c.accuracies), c.place, band=_band(c.sizes, c.accuracies))
        for c in curves
    ]
    lowest = min(100 * e.low for c in curves for e in c.accuracies)
    charts = [
        line_chart(
            accuracy,
            title=f"Accuracy on the {split} split against the size of the training data",
            x_label="training images, logarithmic",
            y_label="accuracy, %",
            axes=(x, linear_axis([lowest, 100])),
        )
    ]
    fitted = [c for c in curves if c.law is not None]
    if fitted:
        errors = [
            Series(c.name, _points(c.sizes, c.errors), c.place, band=_band(c.sizes, c.errors)) for c in fitted
        ]
        laws = [
            Series(
                f"{c.name}: power {_signed(-c.law.exponent.value)}",
                _law(c),
                place_of(c.place, c.place % DASHES + 1),
            )
            for c in fitted
            if c.law is not None
        ]
        heights = [100 * max(e.low, 1e-4) for c in fitted for e in c.errors] + [
            100 * e.high for c in fitted for e in c.errors
        ]
        charts.append(
            line_chart(
                [*errors, *laws],
                title=f"Errors on the {split} split, with the fitted power laws",
                x_label="training images, logarithmic",
                y_label="errors, %, logarithmic",
                axes=(x, log_axis(heights)),
            )
        )
    return charts


def _points(sizes: Sequence[int], estimates: Sequence[Estimate]) -> list[tuple[float, float]]:
    return [(float(n), 100 * e.value) for n, e in zip(sizes, estimates)]


def _band(sizes: Sequence[int], estimates: Sequence[Estimate]) -> list[tuple[float, float, float]]:
    return [(float(n), 100 * e.low, 100 * e.high) for n, e in zip(sizes, estimates)]


def _law(curve: Sizes) -> list[tuple[float, float]]:
    assert curve.law is not None
    return [(float(n), 100 * curve.law.error(n).value) for n in curve.sizes]
