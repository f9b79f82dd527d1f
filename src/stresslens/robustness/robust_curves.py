"""Robust accuracy curves over the radius of a ball."""

from __future__ import annotations

import math
from collections.abc import Sequence

from stresslens.charts.axes import PERCENT, linear_axis
from stresslens.charts.chart import Chart
from stresslens.charts.curve_colours import INK
from stresslens.charts.line_charts import Series, line_chart
from stresslens.core.types import Estimate
from stresslens.robustness.result_file import IndividualAttackCurve, ResultFile

NORMS = {"linf": "L∞", "l2": "L2", "l1": "L1"}
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


def robust_chart(drawn: Sequence[Series], norm: str, title: str, *, with_legend: bool = True) -> Chart:
    reach = max((x for each in drawn for x, _ in each.points), default=1.0)
    label = f"radius in {NORMS[norm]}, pixels from 0 to 1"
    axes = (linear_axis([0, reach]), PERCENT)
    return line_chart(
        drawn, title=title, x_label=label, y_label="accuracy, %", axes=axes, with_legend=with_legend
    )


def worst_case(result: ResultFile) -> list[tuple[float, Estimate]]:
    """The accuracy without attack and at each radius, in the worst case over all attacks."""
    return [(0.0, result.clean), *((level.eps, level.robust) for level in result.curve if level.eps > 0)]


def result_chart(result: ResultFile, individual_attacks: Sequence[IndividualAttackCurve]) -> Chart:
    """The worst case over all attacks, and the accuracy under each individual attack by itself."""

    def finite(rows: Sequence[tuple[float, Estimate]]) -> list[tuple[float, Estimate]]:
        return [(x, e) for x, e in rows if math.isfinite(e.value)]

    lines = [series("worst case of all attempts", finite(worst_case(result)), INK)]
    lines += [
        series(each.label, sorted(finite([(row.eps, row.accuracy) for row in each.rows])), place)
        for place, each in enumerate(individual_attacks)
    ]
    title = result.measure.capitalize() + (", and each attack by itself" if individual_attacks else "")
    return robust_chart(lines, result.norm, title)


def threat_name(result: ResultFile) -> str:
    """The norm, the protocol and the target of an attack in words."""
    protocol = {"own": "custom attacks", "none": "individual attacks"}.get(
        result.protocol, f"protocol {result.protocol}"
    )
    how = "success only at" if result.aimed else "towards"
    aim = "" if result.target is None else f", {how} target {result.toward}"
    if result.left_out:
        aim += f", without the {result.left_out} images of that class"
    return f"{NORMS[result.norm]}, {protocol}{aim}"
