"""Charts as small SVG: colours and dashes by CSS class (report.css), so that they follow dark mode
and print."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from markupsafe import Markup, escape

from stresslens.report.axes import HUGE, Axis, epoch_axis, linear_axis, log_axis
from stresslens.report.format import brief

Point = tuple[float, float]

COLOURS, DASHES = 7, 5
"""Coprime, so that 35 series differ in colour or in dash; report.css has the classes c0…c6 and d0…d4."""

INK = 20
"""The place whose colour is the text's own and whose dash is none, for what is not a run."""

POINTS_A_LINE = 400
POINTS_A_CHART = 8_000
DOTS = 90
"""Points of a chart up to which each is drawn as a dot."""
WIDTH = 440
"""Of a chart, in the drawing's units; at most 14.2 of them to a rem."""

LABEL = 22
LABELLED = 14
"""Marks of a scatter chart that still get their names written beside them."""


@dataclass(frozen=True)
class Series:
    """One line. `band` holds (x, low, high) behind it, `marks` the points to ring; `place` picks
    colour and dash."""

    name: str
    points: Sequence[Point]
    place: int
    band: Sequence[tuple[float, float, float]] = ()
    marks: Sequence[Point] = ()


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


@dataclass(frozen=True)
class _Frame:
    """The box that the axes span, in the drawing's units."""

    x: Axis
    y: Axis
    width: int = WIDTH
    height: int = 280
    top: int = 34
    bottom: int = 44

    @property
    def left(self) -> float:
        return 12 + 7.2 * max(map(len, self.y.labels))

    @property
    def inside(self) -> float:
        return self.width - self.left - 16

    @property
    def tall(self) -> int:
        return self.height - self.top - self.bottom

    def across(self, x: float) -> float:
        return self.left + self.inside * self.x.place(x)

    def down(self, y: float) -> float:
        return self.top + self.tall * (1 - self.y.place(y))

    def at(self, x: float, y: float) -> str:
        return f"{self.across(x):.1f} {self.down(y):.1f}"

    def axes(self, x_label: str, y_label: str) -> list[str]:
        svg = [f'<text class="unit" x="2" y="14">{escape(y_label)}</text>']
        for tick, label in zip(self.y.ticks, self.y.labels):
            y = f"{self.down(tick):.1f}"
            svg.append(f'<path class="grid" d="M{self.left:.1f} {y}h{self.inside:.1f}"/>')
            svg.append(f'<text class="end" x="{self.left - 6:.1f}" y="{y}" dy=".33em">{label}</text>')
        floor = self.height - self.bottom + 17
        for tick, label in zip(self.x.ticks, self.x.labels):
            svg.append(f'<text class="mid" x="{self.across(tick):.1f}" y="{floor}">{label}</text>')
        svg.append(
            f'<text class="mid" x="{self.left + self.inside / 2:.1f}" y="{self.height - 8}">{escape(x_label)}</text>'
        )
        return svg

    @property
    def scales(self) -> str:
        """What a read-out needs to turn places in the drawing back into values: `data-` attributes."""
        box = f"{self.left:.1f} {self.top} {self.inside:.1f} {self.tall}"
        ends = " ".join(
            f"{axis.ticks[0]:.8g} {axis.ticks[-1]:.8g} {int(axis.log)}" for axis in (self.x, self.y)
        )
        return f' data-box="{box}" data-ends="{ends}"'


def decimate(points: Sequence[Point], limit: int = POINTS_A_LINE) -> list[Point]:
    """At most `limit` (at least 4) of the points with finite values, in order: the ends, and the
    extremes of each stretch."""
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
) -> Markup:
    """A chart of several lines with its legend, as a `<figure>`; a log axis leaves out what is not positive.

    `axes` (x, y) are given where they do not follow from the data; `reference` is a named line to
    hold the others against.
    """
    scale = axes or (epoch_axis([]), log_axis([1.0]) if log else linear_axis([]))
    drawn = [_clean(each, *scale) for each in series]
    xs = [p[0] for s in drawn for p in (*s.points, *s.marks, *s.band)]
    ys = [y for s in drawn for y in _heights(s)]
    frame = _Frame(*(axes or (epoch_axis(xs), log_axis(ys) if log else linear_axis(ys))))
    at = frame.at
    svg = frame.axes(x_label, y_label)
    if reference:
        line = "L".join(at(x, y) for x, y in reference[1])
        svg.append(f'<path class="reference" d="M{line}"><title>{escape(reference[0])}</title></path>')
    lines = sum(3 if len(s.band) > 1 else 1 for s in drawn)
    limit = max(8, min(POINTS_A_LINE, POINTS_A_CHART // max(1, lines)))
    for s in drawn:
        if len(s.band) > 1:
            upper, lower = (decimate([(b[0], b[side]) for b in s.band], limit) for side in (2, 1))
            outline = "L".join(at(x, y) for x, y in [*upper, *reversed(lower)])
            svg.append(f'<path class="band {_style(s.place)}" d="M{outline}Z"/>')
    few = sum(len(s.points) for s in drawn) <= DOTS
    for s in drawn:
        kept = decimate(s.points, limit)
        if kept:
            path = "L".join(at(x, y) for x, y in kept)
            svg.append(
                f'<path class="line {_style(s.place)}" d="M{path}"><title>{escape(s.name)}</title></path>'
            )
        if few or len(s.points) == 1:
            svg += [_dot("dot", 2.2, at(x, y), s, f"{x_label} {x:.4g}: {y:.4g}") for x, y in s.points]
        svg += [_dot("ring", 4.5, at(x, y), s, f"chosen: {x_label} {x:.4g}: {y:.4g}") for x, y in s.marks]
    if not xs:
        svg.append(f'<text class="mid" x="{frame.width / 2}" y="{frame.height / 2}">nothing to draw</text>')
    keys = legend(series, reference[0] if reference else "") if with_legend else Markup("")
    return _figure(svg, frame.width, frame.height, title, keys, frame.scales if xs else "")


def legend(series: Sequence[Series], reference: str = "") -> Markup:
    """The lines' keys with their names."""
    keys = [(f"line {_style(s.place)}", s.name) for s in series] + (
        [("reference", reference)] if reference else []
    )
    items = (
        f'<li><svg class="key" viewBox="0 0 30 8" aria-hidden="true"><path class="{kind}" d="M1 4h28"/></svg>'
        f"<bdi>{escape(name)}</bdi></li>"
        for kind, name in keys
    )
    return Markup(f'<ul class="legend">{"".join(items)}</ul>')


def interval_chart(
    rows: Sequence[Interval],
    *,
    title: str,
    x_label: str,
    reference: tuple[float, str] | None = None,
    label: int = LABEL,
) -> Markup:
    """A dot with its whisker for each row, from top to bottom. A reference too far off is named at
    its side, not drawn.

    Names are cut to `label` letters; the chart grows wider for those beyond `LABEL`.
    """
    names = [brief(row.name, label) for row in rows]
    longest = max(map(len, names), default=0)
    width, top, line = WIDTH + round(7.6 * max(0, longest - LABEL)), 22, 24
    known = [v for row in rows for v in (row.value, row.low, row.high, row.beside) if _drawable(v)]
    reference = reference if reference and _drawable(reference[0]) else None
    near = reference is not None and _near(reference[0], known)
    axis = linear_axis([*known, reference[0]] if near and reference else known)
    left = 20 + 7.6 * longest
    right = 14 + 7.2 * max((len(row.written) for row in rows), default=0)
    inside, tall = width - left - right, line * len(rows)

    def at(value: float) -> float:
        return left + inside * axis.place(value)

    svg = []
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
        y = top + line * (i + 0.5)
        svg.append(f'<g class="{_style(row.place)}"><title>{escape(row.name)}: {escape(row.written)}</title>')
        svg.append(
            f'<text class="end name" x="{left - 12:.1f}" y="{y:.1f}" dy=".33em">{escape(names[i])}</text>'
        )
        if _drawable(row.low) and _drawable(row.high):
            low, high = at(row.low), at(row.high)
            svg.append(
                f'<path class="whisker" d="M{low:.1f} {y:.1f}H{high:.1f}m0 -4v8M{low:.1f} {y - 4:.1f}v8"/>'
            )
        if _drawable(row.beside):
            svg.append(f'<circle class="ring" cx="{at(row.beside):.1f}" cy="{y:.1f}" r="4.5"/>')
        if _drawable(row.value):
            svg.append(f'<circle class="solid" cx="{at(row.value):.1f}" cy="{y:.1f}" r="4.5"/>')
        svg.append(
            f'<text class="end" x="{width - 2}" y="{y:.1f}" dy=".33em">{escape(row.written)}</text></g>'
        )
    return _figure(svg, width, top + tall + 42, title)


def scatter_chart(
    marks: Sequence[Mark], *, title: str, x_label: str, y_label: str, log: bool = False
) -> Markup:
    """Dots with the intervals of their heights; up to `LABELLED` of them have their names beside them."""
    scale = (log_axis([1.0]) if log else linear_axis([]), linear_axis([]))
    drawn = [m for m in marks if scale[0].holds(m.x) and scale[1].holds(m.y)]
    heights = [y for m in drawn for y in (m.y, m.low, m.high) if _drawable(y)]
    xs = [m.x for m in drawn] or [1.0]
    gap = (max(xs) - min(xs)) / 16
    x_axis = (
        log_axis([min(xs) / 1.2, max(xs) * 1.2])
        if log
        else linear_axis([min(xs) - min(gap, abs(min(xs))), max(xs) + gap])
    )
    frame = _Frame(x_axis, linear_axis(heights))
    svg = frame.axes(x_label, y_label)
    labels = _labels(drawn, frame) if len(drawn) <= LABELLED else [""] * len(drawn)
    for m, label in sorted(zip(drawn, labels), key=lambda pair: pair[0].x):
        x, y = frame.across(m.x), frame.down(m.y)
        svg.append(
            f'<g class="mark {_style(m.place)}" data-x="{x:.1f}"><title>{escape(m.name)}: {escape(m.written)}</title>'
        )
        if _drawable(m.low) and _drawable(m.high):
            high, low = frame.down(m.high), frame.down(m.low)
            svg.append(
                f'<path class="whisker" d="M{x:.1f} {high:.1f}V{low:.1f}m-4 0h8M{x - 4:.1f} {high:.1f}h8"/>'
            )
        svg.append(f'<circle class="solid" cx="{x:.1f}" cy="{y:.1f}" r="4.5"/>{label}</g>')
    if not drawn:
        svg.append(f'<text class="mid" x="{frame.width / 2}" y="{frame.height / 2}">nothing to draw</text>')
    return _figure(svg, frame.width, frame.height, title)


def map_chart(places: Sequence[Point], labels: Sequence[str], rings: Sequence[bool], *, title: str) -> Markup:
    """Each point as the first letters of its label, in a colour of the label's; some in a ring. The
    axes mean nothing alone."""
    drawn = [
        (x, y, label, ring)
        for (x, y), label, ring in zip(places, labels, rings)
        if _drawable(x) and _drawable(y)
    ]
    order = {label: k for k, label in enumerate(sorted(set(labels)))}
    xs, ys = [x for x, *_ in drawn] or [0.0], [y for _, y, *_ in drawn] or [0.0]
    high = 400
    svg = []
    for x, y, label, ring in sorted(drawn, key=lambda point: point[3]):
        across = 14 + (WIDTH - 28) * (x - min(xs)) / ((max(xs) - min(xs)) or 1)
        down = 14 + (high - 28) * (max(ys) - y) / ((max(ys) - min(ys)) or 1)
        place = f'x="{across:.1f}" y="{down:.1f}"'
        said = f"<title>{escape(label)}{', a mistake' if ring else ''}</title>"
        if ring:
            svg.append(f'<circle class="miss" cx="{across:.1f}" cy="{down:.1f}" r="8"/>')
        svg.append(
            f'<text class="point {_style(order[label])}" {place} dy=".33em">{escape(label[:2])}{said}</text>'
        )
    return _figure(svg, WIDTH, high, title)


def _labels(marks: Sequence[Mark], frame: _Frame) -> list[str]:
    """Each mark's name beside it where that covers no dot and no other name, else a little lower or
    higher."""
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
            if not any(
                way[0] < stop and start < way[1] and abs(at - other) < 12 for start, stop, other in taken
            )
        )
        (start, stop, anchor, edge), at = next(free, ways[0])
        taken.append((start, stop, at))
        labels.append(
            f'<text class="name {anchor}" x="{edge:.1f}" y="{at:.1f}" dy=".33em">{escape(name)}</text>'
        )
    return labels


def _figure(
    svg: Sequence[str], width: int, height: float, title: str, keys: str = "", data: str = ""
) -> Markup:
    said = escape(title)
    return Markup(
        f'<figure class="chart" style="max-width:{width / 14.2:.1f}rem"><figcaption>{said}</figcaption>'
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{said}"{data}>{"".join(svg)}</svg>{keys}</figure>'
    )


def place_of(colour: int, dash: int) -> int:
    """The place with the colour of one place and the dash of another (Chinese remainders of
    `COLOURS` and `DASHES`)."""
    return next(
        place
        for place in range(COLOURS * DASHES)
        if place % COLOURS == colour % COLOURS and place % DASHES == dash % DASHES
    )


def _style(place: int) -> str:
    return f"c{place % COLOURS} d{place % DASHES}"


def _dot(kind: str, radius: float, at: str, series: Series, said: str) -> str:
    x, y = at.split()
    title = f"<title>{escape(series.name)}: {escape(said)}</title>"
    return f'<circle class="{kind} {_style(series.place)}" cx="{x}" cy="{y}" r="{radius}">{title}</circle>'


def _clean(series: Series, x_axis: Axis, y_axis: Axis) -> Series:
    """Without what cannot be drawn."""

    def fits(x: float, *heights: float) -> bool:
        return x_axis.holds(x) and all(y_axis.holds(y) for y in heights)

    band = [b for b in series.band if fits(*b)]
    points, marks = ([p for p in some if fits(*p)] for some in (series.points, series.marks))
    return replace(series, points=points, band=band, marks=marks)


def _drawable(value: float) -> bool:
    return abs(value) <= HUGE


def _heights(series: Series) -> list[float]:
    return [
        *(p[1] for p in series.points),
        *(m[1] for m in series.marks),
        *(y for b in series.band for y in b[1:]),
    ]


def _near(value: float, others: Sequence[float]) -> bool:
    """Whether an axis that reaches to the value still gives the others a fifth of its length."""
    if not others:
        return True
    spread = max(others) - min(others)
    return spread >= 0.2 * (max(*others, value) - min(*others, value))
