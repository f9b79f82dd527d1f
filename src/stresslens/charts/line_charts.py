"""Line charts as small SVG, with their legends; the colours are in `curve_colours` and
core/colours.css."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from markupsafe import Markup, escape

from stresslens.charts.axes import Axis, epoch_axis, linear_axis, log_axis
from stresslens.charts.chart import Chart, distinct, legend_list
from stresslens.charts.chart_frame import ChartFrame, Point
from stresslens.charts.curve_colours import style_of
from stresslens.charts.direct_labels import direct_labels, room_for_labels

POINTS_A_LINE = 400
POINTS_A_CHART = 8_000
DOTS = 90
"""Up to this number of points in a chart, each is drawn as a dot."""


@dataclass(frozen=True)
class Series:
    """One line. `band` holds (x, low, high) behind it, `marks` the points to ring, which a pointer names
    `mark`; `place` is its number in the chart, which gives colour and dash."""

    name: str
    points: Sequence[Point]
    place: int
    band: Sequence[tuple[float, float, float]] = ()
    marks: Sequence[Point] = ()
    mark: str = "chosen"


def decimate(points: Sequence[Point], limit: int = POINTS_A_LINE) -> list[Point]:
    """At most `limit` (at least 4) of the points with finite values, in order: the two ends, and
    the minimum and maximum of each segment."""
    finite = [p for p in points if math.isfinite(p[0]) and math.isfinite(p[1])]
    if len(finite) <= limit:
        return finite
    buckets = (limit - 2) // 2
    inner = range(1, len(finite) - 1)
    kept = {0, len(finite) - 1}
    for b in range(buckets):
        stretch = inner[b * len(inner) // buckets : (b + 1) * len(inner) // buckets]
        if stretch:
            kept |= {min(stretch, key=lambda i: finite[i][1]), max(stretch, key=lambda i: finite[i][1])}
    return [finite[i] for i in sorted(kept)]


def line_chart(
    series: Sequence[Series],
    *,
    title: str,
    x_label: str,
    y_label: str,
    log: bool = False,
    axes: tuple[Axis, Axis] | None = None,
    reference: tuple[str, Sequence[Point]] | None = None,
    with_legend: bool = True,
) -> Chart:
    """A chart of several lines with its legend. A log axis leaves out values that are not positive.
    Many lines have their names at their ends too.

    `axes` (x, y) are given if they do not follow from the data. `reference` is a named line to
    compare the others with.
    """
    scale = axes or (epoch_axis([]), log_axis([1.0]) if log else linear_axis([]))
    drawn = [_clean(each, *scale) for each in series]
    xs = [p[0] for s in drawn for p in (*s.points, *s.marks, *s.band)]
    ys = [y for s in drawn for y in _heights(s)]
    labels = room_for_labels([s.name for s in drawn if s.points])
    frame = ChartFrame(
        *(axes or (epoch_axis(xs), log_axis(ys) if log else linear_axis(ys))), right=max(16, labels)
    )
    at = frame.at
    svg = frame.axes(x_label, y_label)
    if reference:
        line = "L".join(at(x, y) for x, y in reference[1])
        svg.append(f'<path class="reference" d="M{line}"><title>{escape(reference[0])}</title></path>')
    lines = sum(3 if len(s.band) > 1 else 1 for s in drawn)
    limit = max(8, min(POINTS_A_LINE, POINTS_A_CHART // max(1, lines)))
    kept = [replace(s, points=decimate(s.points, limit), band=_decimated(s.band, limit)) for s in drawn]
    for s in kept:
        if len(s.band) > 1:
            upper, lower = ([(b[0], b[side]) for b in s.band] for side in (2, 1))
            outline = "L".join(at(x, y) for x, y in [*upper, *reversed(lower)])
            svg.append(f'<path class="band {style_of(s.place)}" d="M{outline}Z"/>')
    few = sum(len(s.points) for s in kept) <= DOTS
    for s in kept:
        if s.points:
            path = "L".join(at(x, y) for x, y in s.points)
            svg.append(
                f'<path class="line {style_of(s.place)}" d="M{path}"><title>{escape(s.name)}</title></path>'
            )
        if few or len(s.points) == 1:
            svg += [_dot("dot", 2.2, at(x, y), s, f"{x_label} {x:.4g}: {y:.4g}") for x, y in s.points]
        svg += [_dot("ring", 4.5, at(x, y), s, f"{s.mark}: {x_label} {x:.4g}: {y:.4g}") for x, y in s.marks]
    if labels:
        ends = [(s.name, s.place, frame.down(s.points[-1][1])) for s in drawn if s.points]
        svg += direct_labels(ends, frame.left + frame.inside, frame.top, frame.height - frame.bottom)
    if not xs:
        svg.append(f'<text class="mid" x="{frame.width / 2}" y="{frame.height / 2}">nothing to draw</text>')
    keys = _keys(series, reference[0] if reference else "") if with_legend else ()
    rows = _rows(kept, x_label, f"{title}, %" if y_label == "%" else y_label)
    scales = frame.scales if xs else ""
    return Chart(title, "".join(svg), frame.width, frame.height, rows, keys, scales)


def legend(series: Sequence[Series], reference: str = "") -> Markup:
    """The lines' keys with their names."""
    return legend_list(_keys(series, reference))


def _keys(series: Sequence[Series], reference: str) -> list[tuple[str, str]]:
    lines = [(f"line {style_of(s.place)}", s.name) for s in series]
    return [*lines, ("reference", reference)] if reference else lines


def _rows(drawn: Sequence[Series], x_label: str, y_label: str) -> list[dict[str, Any]]:
    """A row for every x of every line, with the ends of its band where any line has one."""
    name, x_key, y_key, *bounds = distinct(["line", x_label, y_label, "low", "high"])
    banded = any(s.band for s in drawn)
    rows = []
    for s in drawn:
        points: list[tuple[float, float | None]] = list(s.points)
        known, ends = {x for x, _ in points}, {x: bound for x, *bound in s.band}
        points = sorted([*points, *((x, None) for x in ends if x not in known)], key=lambda p: p[0])
        for x, y in points:
            low_and_high = dict(zip(bounds, ends.get(x, (None, None)))) if banded else {}
            rows.append({name: s.name, x_key: x, y_key: y, **low_and_high})
    return rows


def _decimated(band: Sequence[tuple[float, float, float]], limit: int) -> list[tuple[float, float, float]]:
    """The band at the places where `decimate` keeps its upper or its lower end."""
    kept = {x for side in (1, 2) for x, _ in decimate([(b[0], b[side]) for b in band], limit // 2)}
    return [b for b in band if b[0] in kept]


def _dot(kind: str, radius: float, at: str, series: Series, text: str) -> str:
    x, y = at.split()
    title = f"<title>{escape(series.name)}: {escape(text)}</title>"
    return f'<circle class="{kind} {style_of(series.place)}" cx="{x}" cy="{y}" r="{radius}">{title}</circle>'


def _clean(series: Series, x_axis: Axis, y_axis: Axis) -> Series:
    """The series without the values that cannot be drawn."""

    def fits(x: float, *heights: float) -> bool:
        return x_axis.holds(x) and all(y_axis.holds(y) for y in heights)

    band = [b for b in series.band if fits(*b)]
    points, marks = ([p for p in some if fits(*p)] for some in (series.points, series.marks))
    return replace(series, points=points, band=band, marks=marks)


def _heights(series: Series) -> list[float]:
    return [
        *(p[1] for p in series.points),
        *(m[1] for m in series.marks),
        *(y for b in series.band for y in b[1:]),
    ]
