"""Accuracies with their intervals as charts: of variants, of the splits of a run, and against cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from stresslens.charts.chart import Chart
from stresslens.charts.dot_charts import Interval, Mark, interval_chart, scatter_chart
from stresslens.config.run_names import READABLE
from stresslens.core.format import count, percent
from stresslens.core.text import duration
from stresslens.report.load import Run, StudyFolder
from stresslens.report.summary import headline, title


def accuracy_chart(study: StudyFolder) -> Chart | None:
    """Accuracy of every variant with its interval, against the majority-class baseline."""
    rows = []
    metric = study.comparison.metric if study.comparison else "accuracy"
    for variant in headline(study):
        estimate = variant.score(study.split, metric)
        if estimate and math.isfinite(estimate.value):
            row = Interval(
                variant.name,
                100 * estimate.value,
                100 * estimate.low,
                100 * estimate.high,
                variant.place,
                f"{100 * estimate.value:.1f}",
            )
            on_train = variant.score("train", metric) if study.split != "train" else None
            rows.append(replace(row, beside=100 * on_train.value) if on_train else row)
    if not rows:
        return None
    baselines = (
        [b.value for r in headline(study) if (b := r.score(study.split, "majority_baseline"))]
        if metric == "accuracy"
        else []
    )
    reference = (100 * baselines[0], f"majority class {100 * baselines[0]:.1f}") if baselines else None
    caption = f"{title(metric)} on the {study.split} split, with its interval"
    key = " (open circle: on the training split)" if any(math.isfinite(row.beside) for row in rows) else ""
    x_label = f"{metric.replace('_', ' ')}, %{key}"
    return interval_chart(
        rows, title=caption, x_label=x_label, reference=reference, label=READABLE, zoom=True
    )


def run_accuracy_chart(run: Run) -> Chart | None:
    """The accuracy of a run on each split with its interval, against the majority-class baseline."""
    rows: list[Interval] = []
    baseline = None
    for split in ("test", "validation", "train"):
        scores = run.record.scores.get(split, {})
        e = scores.get("accuracy")
        baseline = baseline or scores.get("majority_baseline")
        if e and math.isfinite(e.value):
            written = f"{100 * e.value:.1f}"
            rows.append(Interval(split, 100 * e.value, 100 * e.low, 100 * e.high, len(rows), written))
    if not rows:
        return None
    reference = (100 * baseline.value, f"majority class {100 * baseline.value:.1f}") if baseline else None
    return interval_chart(
        rows, title="Accuracy, with its interval", x_label="accuracy, %", reference=reference, zoom=True
    )


def cost_charts(study: StudyFolder) -> list[Chart]:
    """Accuracy against cost: time, multiply-adds and parameters. A cost that is the same for all is
    not drawn."""
    charts = []
    for caption, unit, measure, write in COSTS:
        marks = []
        for variant in headline(study):
            cost, e = variant.mean(measure), variant.score(study.split, "accuracy")
            if cost is not None and e:
                written = f"{percent(e)} %, {write(cost)}"
                marks.append(
                    Mark(variant.name, cost, 100 * e.value, 100 * e.low, 100 * e.high, variant.place, written)
                )
        xs = [mark.x for mark in marks]
        if len(set(xs)) > 1:
            log = min(xs) > 0 and max(xs) / min(xs) > 20
            label = f"{unit}, logarithmic" if log else unit
            charts.append(scatter_chart(marks, title=caption, x_label=label, y_label="accuracy, %", log=log))
    return charts


def _multiply_adds(run: Run) -> float | None:
    return run.record.layers.multiply_adds if run.record.layers else None


def _parameters(run: Run) -> float | None:
    return run.record.layers.parameters if run.record.layers else None


COSTS: Sequence[tuple[str, str, Callable[[Run], float | None], Callable[[float], str]]] = (
    (
        "Accuracy against time",
        "seconds of training, mean of a run",
        lambda run: run.record.training.seconds,
        duration,
    ),
    (
        "Accuracy against work",
        "multiply-adds for one image",
        _multiply_adds,
        lambda n: f"{count(round(n))} multiply-adds",
    ),
    ("Accuracy against size", "parameters", _parameters, lambda n: f"{count(round(n))} parameters"),
)
