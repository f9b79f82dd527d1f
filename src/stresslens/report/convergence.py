"""Convergence in a study's page: differences in validation accuracy, epoch by epoch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stresslens.charts.chart import Chart
from stresslens.charts.line_charts import Series, line_chart
from stresslens.report.load import StudyFolder

MOST = 8
"""Contrasts that are drawn and described."""


TWO = 2
"""Number of seeds whose interval says little: Student's t with one degree of freedom."""


@dataclass(frozen=True)
class ConvergenceSection:
    """A chart of the differences, and a sentence for each pair; `left_out` more pairs are in
    comparison.json."""

    chart: Chart
    said: Sequence[str]
    unit: str
    left_out: int


def convergence_section(study: StudyFolder) -> ConvergenceSection | None:
    """None if no contrast has validation accuracies at two epochs."""
    pairs = study.comparison.pace if study.comparison else []
    if not pairs:
        return None
    ends = [pair.epochs[-1].epoch for pair in pairs[:MOST]]
    scaled = max(ends) > 2 * min(ends)
    drawn = []
    for place, (pair, end) in enumerate(zip(pairs[:MOST], ends)):
        points = [
            (100 * each.epoch / end if scaled else float(each.epoch), each.difference) for each in pair.epochs
        ]
        band = [
            (x, 100 * e.low, 100 * e.high)
            for x, e in points
            if e.low is not None and e.high is not None and pair.seeds != TWO
        ]
        drawn.append(Series(f"{pair.b} minus {pair.a}", [(x, 100 * e.value) for x, e in points], place, band))
    x_label = "share of the training, %" if scaled else "epoch"
    chart = line_chart(drawn, title="Validation accuracy, difference", x_label=x_label, y_label="points")
    single = all(pair.seeds == 1 for pair in pairs[:MOST])
    unit = (
        "over images, as if the two had been tested on different images"
        if single
        else "Student's t over the seeds; not drawn for two seeds"
    )
    return ConvergenceSection(chart, [pair.said for pair in pairs[:MOST]], unit, max(0, len(pairs) - MOST))
