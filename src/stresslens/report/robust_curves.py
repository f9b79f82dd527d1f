"""Robust accuracy curves over the radius of a ball."""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup

from stresslens.charts.axes import linear_axis
from stresslens.charts.line_charts import Series, line_chart
from stresslens.comparison.robustness import NORMS
from stresslens.core.types import Estimate
from stresslens.report.curves import PERCENT

COLUMNS = 6
"""Radii in a table; if there are more, the first, the last and four between them."""


def series(name: str, estimates: Sequence[tuple[float, Estimate]], place: int) -> Series:
    """Percentages with their intervals as a band."""
    band = [
        (x, 100 * e.low, 100 * e.high) for x, e in estimates if math.isfinite(e.low) and math.isfinite(e.high)
    ]
    return Series(name, [(x, 100 * e.value) for x, e in estimates], place, band)


def shown_radii(radii: Sequence[float]) -> list[float]:
    """All radii if there are few; else the first, the last and four evenly between."""
    if len(radii) <= COLUMNS:
        return list(radii)
    return [radii[round(k * (len(radii) - 1) / (COLUMNS - 1))] for k in range(COLUMNS)]


def robust_chart(drawn: Sequence[Series], norm: str, title: str, *, with_legend: bool = True) -> Markup:
    reach = max((x for each in drawn for x, _ in each.points), default=1.0)
    label = f"radius in {NORMS[norm]}, pixels from 0 to 1"
    axes = (linear_axis([0, reach]), PERCENT)
    return line_chart(
        drawn, title=title, x_label=label, y_label="accuracy, %", axes=axes, with_legend=with_legend
    )
