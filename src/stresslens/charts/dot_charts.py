"""Interval, scatter and map charts: dots with their intervals, as SVG."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import escape

from stresslens.charts.axes import linear_axis, log_axis
from stresslens.charts.chart import Chart, distinct
from stresslens.charts.chart_frame import WIDTH, ChartFrame, Point, is_drawable
from stresslens.charts.curve_colours import style_of
from stresslens.core.text import brief

LEAST_INSIDE = 180
"""The width that is left for the dots and the numbers of the axis, at least."""
LABEL = 22
LABELLED = 14
"""Up to this number of marks, a scatter chart writes their names beside them."""


@dataclass(frozen=True)
class Interval:
    """One row of an interval chart; bounds that are not finite are left out."""

    name: str
    value: float
    low: float
    high: float
    place: int
    written: str = ""
    beside: float = math.nan
    """A second value, drawn as an open circle."""
    inner: tuple[float, float] = (math.nan, math.nan)
    """A narrower interval, drawn thick."""


@dataclass(frozen=True)
class Mark:
    """One dot of a scatter chart, with the interval of its height."""

    name: str
    x: float
    y: float
    low: float
    high: float
    place: int
    written: str = ""


def interval_chart(
    rows: Sequence[Interval],
    *,
    title: str,
    x_label: str,
    reference: tuple[float, str] | None = None,
    label: int = LABEL,
    zoom: bool = False,
    band: tuple[float, float, str] | None = None,
) -> Chart:
    """A dot with its whisker for each row, from top to bottom. A reference that is too far off, with
    `zoom` any that lies outside the rows, is named at the side and not drawn. `band` (low, high, name) is
    shaded behind the rows.

    Names are cut to `label` letters; the chart grows wider for those beyond `LABEL`.
    """
    names = [brief(row.name, label) for row in rows]
    longest = max(map(len, names), default=0)
    width, top, line = WIDTH + round(7.6 * max(0, longest - LABEL)), 22, 24
    known = [
        v for row in rows for v in (row.value, row.low, row.high, row.beside, *row.inner) if is_drawable(v)
    ]
    reference = reference if reference and is_drawable(reference[0]) else None
    close = _inside if zoom else _near
    near = reference is not None and close(reference[0], known)
    axis = linear_axis([*known, *([reference[0]] if near and reference else []), *(band or ())[:2]])
    left = 20 + 7.6 * longest
    right = 14 + 7.2 * max((len(row.written) for row in rows), default=0)
    inside, tall = max(LEAST_INSIDE, width - left - right), line * len(rows)
    width = max(width, math.ceil(left + inside + right))

    def at(value: float) -> float:
        return left + inside * axis.place(value)

    svg = _margin_band(band, at, top, tall) if band else []
    for tick, written in zip(axis.ticks, axis.labels):
        svg.append(f'<path class="grid" d="M{at(tick):.1f} {top}v{tall}"/>')
        svg.append(f'<text class="mid" x="{at(tick):.1f}" y="{top + tall + 16}">{written}</text>')
    svg.append(
        f'<text class="mid" x="{left + inside / 2:.1f}" y="{top + tall + 34}">{escape(x_label)}</text>'
    )
    if reference and near:
        x = at(reference[0])
        anchor = "end" if x > left + inside / 2 else "start"
        svg.append(f'<path class="reference" d="M{x:.1f} {top - 4}v{tall + 4}"/>')
        svg.append(f'<text class="{anchor}" x="{x:.1f}" y="12">{escape(reference[1])}</text>')
    elif reference:
        below = reference[0] < min(known)
        note = f"◂ {reference[1]}" if below else f"{reference[1]} ▸"
        side = f'class="start" x="{left:.1f}"' if below else f'class="end" x="{left + inside:.1f}"'
        svg.append(f'<text {side} y="12">{escape(note)}</text>')
    for i, row in enumerate(rows):
        svg += _interval_row(row, names[i], top + line * (i + 0.5), at, (left - 12, width - 2))
    return Chart(title, "".join(svg), width, top + tall + 42, _numbers_of(rows, x_label))


def _margin_band(
    band: tuple[float, float, str], at: Callable[[float], float], top: float, tall: float
) -> list[str]:
    low, high = at(band[0]), at(band[1])
    return [
        f'<path class="margin" d="M{low:.1f} {top}H{high:.1f}v{tall}H{low:.1f}z">'
        f"<title>{escape(band[2])}</title></path>"
    ]


def _numbers_of(rows: Sequence[Interval], x_label: str) -> list[dict[str, str | float | None]]:
    """The numbers of the rows, without those that no row has."""
    columns = distinct(["name", x_label, "low", "high", "open circle", "thick, low", "thick, high"])
    values = [[r.name, *map(_number, (r.value, r.low, r.high, r.beside, *r.inner))] for r in rows]
    circles = any(is_drawable(row.beside) for row in rows)
    thick = any(is_drawable(row.inner[0]) for row in rows)
    shown = [True] * 4 + [circles, thick, thick]
    return [{c: v for c, v, told in zip(columns, each, shown) if told} for each in values]


def _interval_row(
    row: Interval, name: str, y: float, at: Callable[[float], float], ends: tuple[float, int]
) -> list[str]:
    """A row at the height `y`: its name ends at the first of `ends`, its numbers at the second."""
    svg = [
        f'<g class="{style_of(row.place)}"><title>{escape(row.name)}: {escape(row.written)}</title>',
        f'<text class="end name" x="{ends[0]:.1f}" y="{y:.1f}" dy=".33em">{escape(name)}</text>',
    ]
    if is_drawable(row.low) and is_drawable(row.high):
        low, high = at(row.low), at(row.high)
        svg.append(
            f'<path class="whisker" d="M{low:.1f} {y:.1f}H{high:.1f}m0 -4v8M{low:.1f} {y - 4:.1f}v8"/>'
        )
    if all(map(is_drawable, row.inner)):
        svg.append(f'<path class="inner" d="M{at(row.inner[0]):.1f} {y:.1f}H{at(row.inner[1]):.1f}"/>')
    if is_drawable(row.beside):
        svg.append(f'<circle class="ring" cx="{at(row.beside):.1f}" cy="{y:.1f}" r="4.5"/>')
    if is_drawable(row.value):
        svg.append(f'<circle class="solid" cx="{at(row.value):.1f}" cy="{y:.1f}" r="4.5"/>')
    svg.append(f'<text class="end" x="{ends[1]}" y="{y:.1f}" dy=".33em">{escape(row.written)}</text></g>')
    return svg


def scatter_chart(
    marks: Sequence[Mark], *, title: str, x_label: str, y_label: str, log: bool = False
) -> Chart:
    """Dots with the intervals of their heights; up to `LABELLED` of them have their names beside them."""
    scale = (log_axis([1.0]) if log else linear_axis([]), linear_axis([]))
    drawn = [m for m in marks if scale[0].holds(m.x) and scale[1].holds(m.y)]
    heights = [y for m in drawn for y in (m.y, m.low, m.high) if is_drawable(y)]
    xs = [m.x for m in drawn] or [1.0]
    gap = (max(xs) - min(xs)) / 16
    x_axis = (
        log_axis([min(xs) / 1.2, max(xs) * 1.2])
        if log
        else linear_axis([min(xs) - min(gap, abs(min(xs))), max(xs) + gap])
    )
    frame = ChartFrame(x_axis, linear_axis(heights))
    svg = frame.axes(x_label, y_label)
    labels = _labels(drawn, frame) if len(drawn) <= LABELLED else [""] * len(drawn)
    for m, label in sorted(zip(drawn, labels), key=lambda pair: pair[0].x):
        x, y = frame.across(m.x), frame.down(m.y)
        svg.append(
            f'<g class="mark {style_of(m.place)}" data-x="{x:.1f}">'
            f"<title>{escape(m.name)}: {escape(m.written)}</title>"
        )
        if is_drawable(m.low) and is_drawable(m.high):
            high, low = frame.down(m.high), frame.down(m.low)
            svg.append(
                f'<path class="whisker" d="M{x:.1f} {high:.1f}V{low:.1f}m-4 0h8M{x - 4:.1f} {high:.1f}h8"/>'
            )
        svg.append(f'<circle class="solid" cx="{x:.1f}" cy="{y:.1f}" r="4.5"/>{label}</g>')
    if not drawn:
        svg.append(f'<text class="mid" x="{frame.width / 2}" y="{frame.height / 2}">nothing to draw</text>')
    columns = distinct(["name", x_label, y_label, "low", "high"])
    numbers = [dict(zip(columns, (m.name, m.x, m.y, _number(m.low), _number(m.high)))) for m in drawn]
    return Chart(title, "".join(svg), frame.width, frame.height, numbers)


def map_chart(places: Sequence[Point], labels: Sequence[str], rings: Sequence[bool], *, title: str) -> Chart:
    """Each point as the first letters of its label, in the label's colour; some in a ring. The axes
    have no meaning of their own."""
    drawn = [
        (x, y, label, ring)
        for (x, y), label, ring in zip(places, labels, rings)
        if is_drawable(x) and is_drawable(y)
    ]
    order = {label: k for k, label in enumerate(sorted(set(labels)))}
    xs, ys = [x for x, *_ in drawn] or [0.0], [y for _, y, *_ in drawn] or [0.0]
    high = 400
    svg = []
    for x, y, label, ring in sorted(drawn, key=lambda point: point[3]):
        across = 14 + (WIDTH - 28) * (x - min(xs)) / ((max(xs) - min(xs)) or 1)
        down = 14 + (high - 28) * (max(ys) - y) / ((max(ys) - min(ys)) or 1)
        place = f'x="{across:.1f}" y="{down:.1f}"'
        tooltip = f"<title>{escape(label)}{', a mistake' if ring else ''}</title>"
        if ring:
            svg.append(f'<circle class="miss" cx="{across:.1f}" cy="{down:.1f}" r="8"/>')
        svg.append(
            f'<text class="point {style_of(order[label])}" {place} dy=".33em">'
            f"{escape(label[:2])}{tooltip}</text>"
        )
    numbers = [{"group": label, "x": x, "y": y, "mistake": bool(ring)} for x, y, label, ring in drawn]
    return Chart(title, "".join(svg), WIDTH, high, numbers)


def _number(value: float) -> float | None:
    """The value if it can be drawn."""
    return value if is_drawable(value) else None


def _labels(marks: Sequence[Mark], frame: ChartFrame) -> list[str]:
    """Each mark's name, beside it if that covers no dot and no other name, else a little lower or
    higher; empty where there is no room inside the frame."""
    places = [(frame.across(mark.x), frame.down(mark.y)) for mark in marks]
    taken = [(x - 6, x + 6, y) for x, y in places]
    labels = []
    for mark, (x, y) in zip(marks, places):
        name = brief(mark.name, LABEL)
        long = 6.5 * len(name) + 9
        right, left = (x + 7, x + long, "start", x + 9), (x - long, x - 7, "end", x - 9)
        ways = [(way, y + down) for down in (0, 12, -12, 24, -24, 36, -36) for way in (right, left)]
        free = (
            (way, at)
            for way, at in ways
            if frame.left < way[0] and way[1] < frame.width
            if frame.top <= at <= frame.height - frame.bottom
            if not any(
                way[0] < stop and start < way[1] and abs(at - other) < 12 for start, stop, other in taken
            )
        )
        found = next(free, None)
        if found is None:
            labels.append("")
            continue
        (start, stop, anchor, edge), at = found
        taken.append((start, stop, at))
        labels.append(
            f'<text class="name {anchor}" x="{edge:.1f}" y="{at:.1f}" dy=".33em">{escape(name)}</text>'
        )
    return labels


def _inside(value: float, others: Sequence[float]) -> bool:
    return bool(others) and min(others) <= value <= max(others)


def _near(value: float, others: Sequence[float]) -> bool:
    """Whether the other values still take a fifth of an axis that reaches to this value."""
    if not others:
        return True
    spread = max(others) - min(others)
    return spread >= 0.2 * (max(*others, value) - min(*others, value))
