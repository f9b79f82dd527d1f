"""How fast recipes learn against each other, epoch by epoch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from stresslens.report.figures import Series, line_chart
from stresslens.report.reading import Study

MOST = 8
"""Contrasts that are drawn and told."""


@dataclass(frozen=True)
class Pace:
    """A chart of the differences, and what each pair comes to; `left_out` pairs more are in comparison.json."""

    chart: Markup
    said: Sequence[str]
    unit: str
    left_out: int


def section(study: Study) -> Pace | None:
    """None where no contrast was watched at two epochs on validation."""
    pairs = study.comparison.pace if study.comparison else []
    if not pairs:
        return None
    drawn = []
    for place, pair in enumerate(pairs[:MOST]):
        points = [(float(each.epoch), 100 * each.difference.value) for each in pair.epochs]
        ends = [(x, e.difference.low, e.difference.high) for (x, _), e in zip(points, pair.epochs)]
        band = [(x, 100 * low, 100 * high) for x, low, high in ends if low is not None and high is not None]
        drawn.append(Series(f"{pair.b} less {pair.a}", points, place, band))
    chart = line_chart(drawn, title="Validation accuracy, difference", x_label="epoch", y_label="points")
    single = all(pair.seeds == 1 for pair in pairs[:MOST])
    unit = "over images, as if the two had seen different ones" if single else "Student's t over the seeds"
    return Pace(chart, [pair.said for pair in pairs[:MOST]], unit, max(0, len(pairs) - MOST))
