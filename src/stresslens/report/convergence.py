"""How fast recipes learn against each other, epoch by epoch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from stresslens.report.charts import Series, line_chart
from stresslens.report.load import StudyFolder

MOST = 8
"""Contrasts that are drawn and told."""


TWO = 2
"""Seeds whose interval says little: Student's t with one degree of freedom."""


@dataclass(frozen=True)
class Pace:
    """A chart of the differences, and what each pair comes to; `left_out` pairs more are in
    comparison.json."""

    chart: Markup
    said: Sequence[str]
    unit: str
    left_out: int


def convergence_section(study: StudyFolder) -> Pace | None:
    """None where no contrast was watched at two epochs on validation."""
    pairs = study.comparison.pace if study.comparison else []
    if not pairs:
        return None
    ends = [pair.epochs[-1].epoch for pair in pairs[:MOST]]
    apart = max(ends) > 2 * min(ends)
    drawn = []
    for place, (pair, end) in enumerate(zip(pairs[:MOST], ends)):
        of = [
            (100 * each.epoch / end if apart else float(each.epoch), each.difference) for each in pair.epochs
        ]
        band = [
            (x, 100 * e.low, 100 * e.high)
            for x, e in of
            if e.low is not None and e.high is not None and pair.seeds != TWO
        ]
        drawn.append(Series(f"{pair.b} less {pair.a}", [(x, 100 * e.value) for x, e in of], place, band))
    x_label = "share of the training, %" if apart else "epoch"
    chart = line_chart(drawn, title="Validation accuracy, difference", x_label=x_label, y_label="points")
    single = all(pair.seeds == 1 for pair in pairs[:MOST])
    unit = (
        "over images, as if the two had seen different ones"
        if single
        else "Student's t over the seeds; of two seeds not drawn"
    )
    return Pace(chart, [pair.said for pair in pairs[:MOST]], unit, max(0, len(pairs) - MOST))
