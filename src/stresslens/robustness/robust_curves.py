"""Robust accuracy curves over the radius of a ball."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from stresslens.charts.axes import PERCENT, linear_axis
from stresslens.charts.chart import Chart
from stresslens.charts.curve_colours import INK
from stresslens.charts.line_charts import Series, line_chart
from stresslens.core.format import count, percent, plain, radius
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


@dataclass(frozen=True)
class QueryTable:
    """What an attack reached by queries: column names, and rows of cells. `note` is a sentence."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str


def query_tables(result: ResultFile) -> list[QueryTable]:
    """A table for each individual attack that counts its queries, and one for those of the protocol at
    their largest radius."""
    tables = [_query_table(attack) for attack in result.individual_attacks if _counts_queries(attack)]
    labels = [attack.label for attack in result.attacks]
    traces = [trace for trace in result.traces if trace.broke_within and trace.attack in labels]
    largest = {trace.attack: trace for trace in sorted(traces, key=lambda trace: trace.eps)}
    if largest:
        rows = [
            [trace.attack, radius(float(f"{trace.eps:.6g}")), count(trace.n), f"{mark:,}", count(broke)]
            for trace in largest.values()
            for mark, broke in trace.broke_within.items()
        ]
        columns = ("attack", "radius", "images", "queries", "broken")
        note = "Images that the attacks before it did not break, at its largest radius."
        tables.append(QueryTable("Attacks of the protocol, by queries for each image", columns, rows, note))
    return tables


def _counts_queries(attack: IndividualAttackCurve) -> bool:
    return any(row.by_queries for row in attack.rows)


def _query_table(attack: IndividualAttackCurve) -> QueryTable:
    """By queries: the median perturbation, from the largest radius, and the accuracy at each radius."""
    by_radius = {row.eps: row.by_queries for row in attack.rows if row.by_queries}
    radii = shown_radii(sorted(by_radius))
    columns = ("queries", "median perturbation", *(f"accuracy at {radius(eps)}, %" for eps in radii))
    rows = [
        [
            f"{level.queries:,}",
            plain(level.perturbation) if level.perturbation else "none for half of them",
            *(percent(by_radius[eps][place].robust) for eps in radii),
        ]
        for place, level in enumerate(by_radius[radii[-1]])
    ]
    right = next((level.perturbation.n for level in by_radius[radii[-1]] if level.perturbation), 0)
    note = (
        "Queries for each image; the smallest perturbation that fools the model, "
        f"at radius {radius(radii[-1])}"
        + (f", of the {right} images that are correct without attack" if right else "")
        + ". The attack goes on with broken images."
    )
    return QueryTable(f"{attack.label} by itself, by queries", columns, rows, note)


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
