"""ROC and precision–recall curves of a run's page, from its saved predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stresslens.charts.axes import PERCENT
from stresslens.charts.chart import Chart
from stresslens.charts.chart_frame import Point
from stresslens.charts.line_charts import Series, line_chart
from stresslens.core.answers import predicted
from stresslens.core.files import UnreadableRun
from stresslens.core.types import Estimate
from stresslens.evaluation.record import PerClass
from stresslens.evaluation.scores import Predictions
from stresslens.metrics.classification import Labels
from stresslens.metrics.intervals import Floats
from stresslens.metrics.ranking_curves import RankingCurve, mean_curve, precision_recall_curve, roc_curve
from stresslens.report.curves import Charts
from stresslens.report.gallery import class_name
from stresslens.report.load import Run

CLASSES = 20
"""With more classes, only the mean over them is drawn."""
VALUES = 20_000_000
"""Most scores (images times classes) that a page is made from."""
CHANCE = ("by chance", ((0.0, 0.0), (100.0, 100.0)))
MEAN = "mean"


@dataclass(frozen=True)
class RankingSection:
    """The two charts, how to read them, and what could not be drawn."""

    charts: Charts | None
    said: Sequence[str]
    lead: str = ""


@dataclass(frozen=True)
class _Drawn:
    """The curves of one class against the rest, and where its predictions lie on them."""

    name: str
    roc: RankingCurve
    precision_recall: RankingCurve
    roc_point: Point
    precision_recall_point: Point | None


def ranking_section(run: Run, split: str) -> RankingSection | None:
    """ROC and precision–recall curves of a split: one class against the rest, each up to `CLASSES`; of
    two classes those of the second. None where a run has no scores to rank by."""
    table, k = run.record.per_class.get(split), len(run.classes)
    if table is None or not sources(run, split):
        return None
    try:
        found = Predictions.of_arrays(run.folder.load_predictions(split)).answered
    except UnreadableRun as error:
        return RankingSection(None, [f"The curves are left out: {error}"])
    if found.scores.shape[1] != k:
        return RankingSection(None, ["The curves are left out: the saved predictions have other classes"])
    shown = [1] if k == 2 else list(range(k))
    labels, probabilities, answers = found.labels, found.probabilities, predicted(found.scores)
    of_classes = {
        c: _of_class(class_name(run, c), labels == c, probabilities[:, c], answers == c) for c in shown
    }
    drawn = {c: each for c, each in of_classes.items() if each is not None}
    said = _left_out(run, labels, probabilities, shown)
    if not drawn:
        return RankingSection(None, said)
    what = f"the class {class_name(run, 1)}" if k == 2 else "each class against the rest"
    if k > CLASSES:
        what = f"the mean over {k} classes, each against the rest"
    lead = (
        f"By every threshold of the probability, for {what}, on {len(found.labels):,} {split} images. The "
        f"numbers are the areas: AUROC, and average precision (AUPRC){_where(k)}."
    )
    return RankingSection(Charts(_charts(drawn, table, run, split)), said, lead)


def sources(run: Run, split: str) -> list[Path]:
    """The file that the curves are made from; none where there are no curves."""
    table, file = run.record.per_class.get(split), run.folder.predictions(split)
    if table is None or not table.auroc or sum(table.support) * len(run.classes) > VALUES:
        return []
    return [file] if file.is_file() else []


def _where(k: int) -> str:
    """What else there is to read in the charts."""
    if k > CLASSES:
        return ""
    ring = "the ring is the prediction"
    if k > 2:
        ring += ", which is the most likely class and no threshold, so that it may lie beside its line"
    return f", with their intervals under Each class; {ring}"


def _of_class(
    name: str, positive: NDArray[np.bool_], scores: Floats, called: NDArray[np.bool_]
) -> _Drawn | None:
    """The curves of a class by whether images are of it, its probabilities, and whether it is predicted; None
    where all images are of it, or none is."""
    if positive.all() or not positive.any():
        return None
    hit, false = _share(called, positive), _share(called, ~positive)
    precision = _share(positive, called) if called.any() else None
    return _Drawn(
        name,
        roc_curve(scores, positive),
        precision_recall_curve(scores, positive),
        (false, hit),
        None if precision is None else (hit, precision),
    )


def _share(of: NDArray[np.bool_], among: NDArray[np.bool_]) -> float:
    """In percent."""
    return 100 * float(of[among].mean())


def _left_out(run: Run, labels: Labels, probabilities: Floats, shown: Sequence[int]) -> list[str]:
    """Which classes have no curve, or one that says nothing, in sentences."""
    n, said = len(labels), []
    absent = [c for c in shown if not (labels == c).any()]
    alone = [c for c in shown if n and (labels == c).all()]
    if absent or alone:
        names = ", ".join(class_name(run, c) for c in absent or alone)
        why = "no image is of this class" if absent else "every image is of this class"
        said.append(f"No curve, since {why} (n = {n:,}): {names}")
    flat = [c for c in shown if c not in (*absent, *alone) and np.ptp(probabilities[:, c]) == 0]
    if flat:
        names = ", ".join(class_name(run, c) for c in flat)
        said.append(f"All images have the same score, which ranks none of them: {names}")
    return said


def _charts(drawn: dict[int, _Drawn], table: PerClass, run: Run, split: str) -> list[Chart]:
    """The ROC chart and the precision–recall chart, the mean over the classes first."""
    scores, several = run.record.scores.get(split, {}), len(run.classes) > 2
    kinds = (
        (
            "ROC: true positives against false ones",
            "false-positive rate, %",
            "true-positive rate, %",
            "auroc",
        ),
        ("Precision and recall", "recall, %", "precision, %", "auprc"),
    )
    charts = []
    for place, (title, x_label, y_label, name) in enumerate(kinds):
        curves = {c: (each.roc, each.precision_recall)[place] for c, each in drawn.items()}
        series = []
        if several:
            mean = mean_curve(list(curves.values()))
            series.append(Series(_named(MEAN, scores.get(name)), _points(mean), 0))
        for c, curve in curves.items() if len(run.classes) <= CLASSES else ():
            mark = (drawn[c].roc_point, drawn[c].precision_recall_point)[place]
            figure: Estimate = getattr(table, name)[c]
            named = _named(drawn[c].name, figure)
            marks = [] if mark is None else [mark]
            series.append(Series(named, _points(curve), c + several, marks=marks, mark="as predicted"))
        charts.append(
            line_chart(
                series,
                title=title,
                x_label=x_label,
                y_label=y_label,
                axes=(PERCENT, PERCENT),
                reference=CHANCE if name == "auroc" else _base_rate(table, several),
            )
        )
    return charts


def _named(name: str, area: Estimate | None) -> str:
    """A line's name with the area under it."""
    return name if area is None else f"{name}: {area.value:.3f}"


def _base_rate(table: PerClass, several: bool) -> tuple[str, tuple[Point, Point]] | None:
    """The precision of a guess; that of several classes differs, so there is no common line."""
    if several or not sum(table.support):
        return None
    share = 100 * table.support[1] / sum(table.support)
    return "by chance", ((0.0, share), (100.0, share))


def _points(curve: RankingCurve) -> list[Point]:
    """The corners of a curve, in percent."""
    x, y = 100 * curve.x, 100 * curve.y
    corner = np.ones(len(x), bool)
    dx, dy = np.diff(x), np.diff(y)
    corner[1:-1] = np.abs(dx[:-1] * dy[1:] - dx[1:] * dy[:-1]) > 1e-9
    return [(float(a), float(b)) for a, b in zip(x[corner], y[corner])]
