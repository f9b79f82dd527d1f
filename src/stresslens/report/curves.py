"""Learning curves, reliability diagrams and risk–coverage curves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median

from markupsafe import Markup

from stresslens.charts.axes import PERCENT, epoch_axis, linear_axis
from stresslens.charts.chart import Chart
from stresslens.charts.chart_frame import Point
from stresslens.charts.line_charts import Series, decimate, legend, line_chart
from stresslens.evaluation.record import BinRecord
from stresslens.report.load import Run, StudyFolder, VariantRuns

CURVES = (
    ("Training loss", ("loss",)),
    ("Training split, loss after the epoch", ("train", "loss")),
    ("Validation loss", ("validation", "loss")),
    ("Test loss: shown, never used", ("test", "loss")),
    ("Training split, accuracy after the epoch", ("train", "accuracy")),
    ("Validation accuracy", ("validation", "accuracy")),
    ("Test accuracy: shown, never used", ("test", "accuracy")),
    ("Training split, top-5 accuracy after the epoch", ("train", "top5")),
    ("Validation top-5 accuracy", ("validation", "top5")),
    ("Test top-5 accuracy: shown, never used", ("test", "top5")),
)
SHARES = ("accuracy", "top5")
"""Quantities that are drawn in percent."""
SATURATED = 99.0
"""Top-5 accuracy in percent from which on, at the end of every line, its chart is left out."""
SPLITS = (
    ("during the epoch", ()),
    ("training split", ("train",)),
    ("validation", ("validation",)),
    ("test", ("test",)),
)
SHARED_LEGEND = 8
"""From this number of variants on, the charts of a section share one legend."""
SINGLE, SMALL = 24, 80
"""Most variants with a chart of their own, and the points of its line."""
FEW = 5
"""With fewer images in a bin, its accuracy is not drawn."""
IDEAL = ("perfectly calibrated", ((0.0, 0.0), (100.0, 100.0)))


@dataclass(frozen=True)
class Charts:
    """Charts of one section, and their legend if they share it."""

    charts: Sequence[Chart]
    legend: Markup | None = None
    single: Sequence[Chart] = ()
    """A chart of each line by itself, where there are too many for one chart."""


Logged = list[tuple[str, bool, list[Series]]]
"""Each logged quantity that is worth a chart: its title, whether it is in percent, and a line for each
variant."""


def learning_curves(logged: Logged) -> Charts | None:
    """One chart for each logged quantity, all variants overlaid, seeds as bands."""
    if not logged:
        return None
    lines = {line.place: line for _, _, drawn in logged for line in drawn}
    shared = len(lines) >= SHARED_LEGEND
    charts = [_curve_chart(drawn, title, percent, with_legend=not shared) for title, percent, drawn in logged]
    keys = legend([lines[place] for place in sorted(lines)]) if shared else None
    return Charts(charts, keys, _single(logged) if shared else ())


def _single(logged: Logged) -> list[Chart]:
    """The validation accuracy of each variant, or else the first logged quantity, against the median of
    all, on common axes."""
    title, is_percent, lines = next((each for each in logged if each[0] == "Validation accuracy"), logged[0])
    heights: dict[float, list[float]] = {}
    for line in lines:
        for x, y in line.points:
            heights.setdefault(x, []).append(y)
    middle = decimate([(x, median(ys)) for x, ys in sorted(heights.items())], SMALL)
    axes = epoch_axis(list(heights)), linear_axis([y for ys in heights.values() for y in ys])
    return [
        line_chart(
            [replace(line, points=decimate(line.points, SMALL), band=(), marks=line.marks[:3])],
            title=line.name,
            x_label="epoch",
            y_label=f"{title}, %" if is_percent else title,
            axes=axes,
            reference=("median of all variants", middle),
            with_legend=False,
        )
        for line in lines[:SINGLE]
    ]


def learning_series(study: StudyFolder) -> Logged:
    """What the variants of a study have logged, the mean over the seeds of each."""
    found = []
    for title, keys in CURVES:
        is_percent = keys[-1] in SHARES
        scale = 100.0 if is_percent else 1.0
        drawn = [each for variant in study.variants if (each := _over_seeds(variant, keys, scale))]
        if drawn and not _is_saturated(keys[-1], drawn):
            found.append((title, is_percent, drawn))
    return found


def run_curves(run: Run) -> Charts | None:
    """Loss and accuracy of one run, the splits overlaid. The chosen epoch is ringed on the
    validation line."""
    charts = []
    for title, key in (("Loss", "loss"), ("Accuracy", "accuracy"), ("Top-5 accuracy", "top5")):
        scale = 100.0 if key in SHARES else 1.0
        drawn = []
        for place, (name, split) in enumerate(SPLITS):
            points = [(x, scale * y) for x, y in run.curve(*split, key)]
            marks = (
                [p for p in points if p[0] == run.record.training.chosen_epoch]
                if split == ("validation",)
                else []
            )
            if points:
                drawn.append(Series(name, points, place, marks=marks))
        if drawn and not _is_saturated(key, drawn):
            charts.append(_curve_chart(drawn, title, scale == 100))
    return Charts(charts) if charts else None


def _is_saturated(key: str, drawn: Sequence[Series]) -> bool:
    """Whether a chart of top-5 accuracies would show lines at the top alone."""
    return key == "top5" and all(each.points[-1][1] >= SATURATED for each in drawn if each.points)


def _curve_chart(drawn: Sequence[Series], title: str, is_percent: bool, *, with_legend: bool = True) -> Chart:
    """The chart of one quantity over epochs, with its unit and scale."""
    ys = [y for series in drawn for _, y in series.points]
    log = bool(ys) and not is_percent and min(ys) > 0 and max(ys) / min(ys) > 30
    unit = "%" if is_percent else "loss, logarithmic" if log else "loss"
    return line_chart(drawn, title=title, x_label="epoch", y_label=unit, log=log, with_legend=with_legend)


def _over_seeds(variant: VariantRuns, keys: tuple[str, ...], scale: float) -> Series | None:
    """A single seed's line; or the mean over the finished seeds, at the epochs that all of them
    have, with a band from the lowest to the highest seed."""
    lines: list[dict[float, float]] = []
    averaged: list[dict[float, float]] = []
    marks: list[Point] = []
    for run in variant.runs:
        line = {x: scale * y for x, y in run.curve(*keys)}
        if not line:
            continue
        lines.append(line)
        if run.finished or not variant.finished:
            averaged.append(line)
        chosen = run.record.training.chosen_epoch
        if run.finished and chosen is not None and chosen in line:
            marks.append((chosen, line[chosen]))
    if not lines:
        return None
    mean, band = _mean_and_band(averaged or lines, lines)
    return Series(variant.name, mean, variant.place, band, marks)


def _mean_and_band(
    averaged: Sequence[dict[float, float]], lines: Sequence[dict[float, float]]
) -> tuple[list[Point], list[tuple[float, float, float]]]:
    """The mean at the epochs that all of `averaged` have. With several lines, also the band from
    the lowest to the highest of them."""
    shared = sorted(set.intersection(*(set(line) for line in averaged)))
    mean = [(x, math.fsum(line[x] for line in averaged) / len(averaged)) for x in shared]
    band = []
    if len(lines) > 1:
        for x in sorted(set.union(*(set(line) for line in lines))):
            values = [line[x] for line in lines if x in line]
            band.append((x, min(values), max(values)))
    return mean, band


def confidence_charts(study: StudyFolder) -> Charts | None:
    """Reliability and risk–coverage of every variant, overlaid. Seeds are pooled in the first and
    shown as bands in the second."""
    reliability = [each for variant in study.variants if (each := _reliability(variant, study.split))]
    risk = [each for variant in study.variants if (each := _risk(variant, study.split))]
    drawn = reliability or risk
    shared = len(drawn) >= SHARED_LEGEND
    charts = []
    if reliability:
        charts.append(_reliability_chart(reliability, with_legend=not shared))
    if risk:
        charts.append(_risk_chart(risk, with_legend=not shared))
    return Charts(charts, legend(drawn, IDEAL[0]) if shared else None) if charts else None


def run_reliability(run: Run, split: str) -> Chart | None:
    """Reliability before and, if a temperature was fitted, after scaling. Bands are the intervals
    of a bin's accuracy."""
    found = run.record.reliability.get(split)
    if found is None:
        return None
    return reliability_chart(found.bins, found.calibrated)


def reliability_chart(bins: Sequence[BinRecord], calibrated: Sequence[BinRecord] | None) -> Chart:
    """As `run_reliability`, from the bins."""
    drawn = [_of_bins("as trained", bins, 0)]
    if calibrated:
        drawn.append(_of_bins("after temperature scaling", calibrated, 1))
    return _reliability_chart(drawn)


def run_risk(run: Run, split: str) -> Chart | None:
    found = run.record.risk_coverage.get(split)
    return risk_coverage_chart(found.coverage, found.risk) if found else None


def risk_coverage_chart(coverage: Sequence[float], risk: Sequence[float | None]) -> Chart:
    """The share of errors over the share of images that are classified, the most confident first."""
    points = sorted((100 * c, 100 * r) for c, r in zip(coverage, risk) if r is not None)
    return _risk_chart([Series("errors", points, 0)], with_legend=False)


def _of_bins(name: str, bins: Sequence[BinRecord], place: int) -> Series:
    filled = [
        (100 * b.confidence, b.accuracy)
        for b in bins
        if b.n >= FEW and b.accuracy and b.confidence is not None
    ]
    points = [(x, 100 * e.value) for x, e in filled]
    return Series(name, points, place, [(x, 100 * e.low, 100 * e.high) for x, e in filled])


def _reliability(variant: VariantRuns, split: str) -> Series | None:
    """The bins of every finished seed, pooled."""
    seeds = [
        run.record.reliability[split].bins for run in variant.finished if split in run.record.reliability
    ]
    points = []
    for same in zip(*seeds):
        filled = [
            (b.n, b.confidence, b.accuracy.value)
            for b in same
            if b.n and b.accuracy and b.confidence is not None
        ]
        n = sum(each[0] for each in filled)
        if n >= FEW:
            points.append(
                (100 * sum(m * x for m, x, _ in filled) / n, 100 * sum(m * y for m, _, y in filled) / n)
            )
    return Series(variant.name, points, variant.place) if points else None


def _risk(variant: VariantRuns, split: str) -> Series | None:
    lines = [line for run in variant.finished if (line := _risk_line(run, split))]
    if not lines:
        return None
    mean, band = _mean_and_band(lines, lines)
    return Series(variant.name, mean, variant.place, band)


def _risk_line(run: Run, split: str) -> dict[float, float]:
    """A mapping from coverage to risk, both in percent."""
    found = run.record.risk_coverage.get(split)
    return {100 * c: 100 * r for c, r in zip(found.coverage, found.risk) if r is not None} if found else {}


def _reliability_chart(drawn: Sequence[Series], *, with_legend: bool = True) -> Chart:
    return line_chart(
        drawn,
        title="Reliability: accuracy against predicted probability",
        x_label="probability of the predicted class, %",
        y_label="accuracy, %",
        axes=(PERCENT, PERCENT),
        reference=IDEAL,
        with_legend=with_legend,
    )


def _risk_chart(drawn: Sequence[Series], *, with_legend: bool = True) -> Chart:
    heights = [y for s in drawn for y in (*(p[1] for p in s.points), *(b[2] for b in s.band))]
    return line_chart(
        drawn,
        title="Risk and coverage: errors if the model may abstain",
        x_label="coverage: images classified, the most confident first, %",
        y_label="errors among them, %",
        axes=(PERCENT, linear_axis([0, *heights])),
        with_legend=with_legend,
    )
