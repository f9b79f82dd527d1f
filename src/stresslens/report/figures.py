"""Charts as small SVG: colours and dashes by CSS class (report.css), so that they follow dark mode and print."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from markupsafe import Markup, escape

Point = tuple[float, float]

COLOURS, DASHES = 7, 5
"""Coprime, so that 35 series differ in colour or in dash; report.css has the classes c0…c6 and d0…d4."""

INK = 20
"""The place whose colour is the text's own and whose dash is none, for what is not a run."""

POINTS_A_LINE = 400
POINTS_A_CHART = 16_000
HOVER_POINTS = 150
LABEL = 22
HUGE = 1e250
"""What lies beyond is not drawn, so that no sum, quotient or power of what is drawn overflows."""


@dataclass(frozen=True)
class Series:
    """One line. `band` holds (x, low, high) behind it, `marks` the points to ring; `place` picks colour and dash."""

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
class Axis:
    """Ticks with their labels, and where a value lies between the first and the last tick (0 to 1)."""

    ticks: Sequence[float]
    labels: Sequence[str] = field(default=())
    log: bool = False

    def place(self, value: float) -> float:
        low, high = self.ticks[0], self.ticks[-1]
        if self.log:
            return (math.log10(value) - math.log10(low)) / (math.log10(high) - math.log10(low))
        return (value - low) / (high - low)


def linear_axis(values: Sequence[float], *, count: int = 5) -> Axis:
    """Ticks at 1, 2 or 5 times a power of ten, the first and last enclosing the values; without any, 0 to 1."""
    finite = [min(max(v, -HUGE), HUGE) for v in values if math.isfinite(v)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 1.0)
    size = max(abs(low), abs(high))
    if high - low <= 1e-9 * size or high - low < 1 / HUGE:
        pad = size / 10 if size > 1 / HUGE else 0.5
        low, high = low - pad, high + pad
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * nice for nice in (1, 2, 5, 10) if power * nice >= raw * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    first -= first * step > low
    last += last * step < high
    ticks = [k * step for k in range(first, last + 1)]
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    far = max(abs(ticks[0]), abs(ticks[-1])) >= 1e5 or decimals > 4
    return Axis(ticks, [_minus(f"{tick:.3g}" if far else f"{tick:.{decimals}f}") for tick in ticks])


def log_axis(values: Sequence[float]) -> Axis:
    """Ticks at 1, 2 and 5 (or only at powers of ten where there are many) enclosing the positive values."""
    positive = [min(max(v, 1 / HUGE), HUGE) for v in values if math.isfinite(v) and v > 0] or [1.0]
    first, last = math.floor(math.log10(min(positive))), math.ceil(math.log10(max(positive)))
    last = max(last, first + 1)
    if last - first > 3:
        stride = math.ceil((last - first) / 6)
        last = first + stride * math.ceil((last - first) / stride)
        ticks = [10.0**k for k in range(first, last + 1, stride)]
    else:
        fine = [nice * 10.0**k for k in range(first, last + 1) for nice in (1, 2, 5)]
        start = max(i for i, tick in enumerate(fine) if tick <= min(positive) or i == 0)
        stop = min(i for i, tick in enumerate(fine) if tick >= max(positive) and i > start)
        ticks = fine[start : stop + 1]
    return Axis(ticks, [_minus(f"{tick:.3g}") for tick in ticks], log=True)


def decimate(points: Sequence[Point], limit: int = POINTS_A_LINE) -> list[Point]:
    """At most `limit` (at least 4) of the points with finite values, in order: the ends, and the extremes of each stretch."""
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


def line_chart(series: Sequence[Series], *, title: str, x_label: str, y_label: str, log: bool = False) -> Markup:
    """A chart of several lines with its legend, as a `<figure>`; a log axis leaves out what is not positive."""
    width, height, top, bottom = 440, 280, 34, 44
    drawn = [_clean(each, log) for each in series]
    ys = [y for s in drawn for y in _heights(s)]
    y_axis = log_axis(ys) if log else linear_axis(ys)
    xs = [p[0] for s in drawn for p in (*s.points, *s.marks, *s.band)]
    x_axis = _epochs(xs)
    left = 12 + 7.2 * max(map(len, y_axis.labels))
    inside, tall = width - left - 14, height - top - bottom

    def at(x: float, y: float) -> str:
        return f"{left + inside * x_axis.place(x):.1f} {top + tall * (1 - y_axis.place(y)):.1f}"

    svg = [f'<text class="unit" x="2" y="14">{escape(y_label)}</text>']
    for tick, label in zip(y_axis.ticks, y_axis.labels):
        y = f"{top + tall * (1 - y_axis.place(tick)):.1f}"
        svg.append(f'<path class="grid" d="M{left:.1f} {y}h{inside:.1f}"/>')
        svg.append(f'<text class="end" x="{left - 6:.1f}" y="{y}" dy=".33em">{label}</text>')
    for tick, label in zip(x_axis.ticks, x_axis.labels):
        svg.append(f'<text class="mid" x="{left + inside * x_axis.place(tick):.1f}" y="{height - bottom + 17}">{label}</text>')
    svg.append(f'<text class="mid" x="{left + inside / 2:.1f}" y="{height - 8}">{escape(x_label)}</text>')
    limit = max(8, min(POINTS_A_LINE, POINTS_A_CHART // (3 * max(1, len(drawn)))))
    for s in drawn:
        if len(s.band) > 1:
            upper, lower = (decimate([(b[0], b[side]) for b in s.band], limit) for side in (2, 1))
            outline = "L".join(at(x, y) for x, y in [*upper, *reversed(lower)])
            svg.append(f'<path class="band {_style(s.place)}" d="M{outline}Z"/>')
    hover = sum(len(s.points) for s in drawn) <= HOVER_POINTS
    for s in drawn:
        name, kept = escape(s.name), decimate(s.points, limit)
        if kept:
            path = "L".join(at(x, y) for x, y in kept)
            svg.append(f'<path class="line {_style(s.place)}" d="M{path}"><title>{name}</title></path>')
        if hover or len(s.points) == 1:
            svg += [_dot("dot", 2.2, at(x, y), s, f"{x_label} {x:g}: {y:.4g}") for x, y in s.points]
        svg += [_dot("ring", 4.5, at(x, y), s, f"chosen: {x_label} {x:g}: {y:.4g}") for x, y in s.marks]
    if not xs:
        svg.append(f'<text class="mid" x="{width / 2}" y="{height / 2}">nothing to draw</text>')
    legend = "".join(
        f'<li><svg class="key" viewBox="0 0 30 8" aria-hidden="true"><path class="line {_style(s.place)}" d="M1 4h28"/></svg>'
        f"<bdi>{escape(s.name)}</bdi></li>"
        for s in drawn
    )
    return _figure(svg, width, height, title, f'<ul class="legend">{legend}</ul>')


def interval_chart(rows: Sequence[Interval], *, title: str, x_label: str, reference: tuple[float, str] | None = None) -> Markup:
    """A dot with its whisker for each row, from top to bottom. A reference too far off is named at its side, not drawn."""
    width, top, line = 440, 22, 24
    known = [v for row in rows for v in (row.value, row.low, row.high, row.beside) if _drawable(v)]
    reference = reference if reference and _drawable(reference[0]) else None
    near = reference is not None and _near(reference[0], known)
    axis = linear_axis([*known, reference[0]] if near and reference else known)
    left = 20 + 7.6 * max((min(len(row.name), LABEL) for row in rows), default=0)
    right = 14 + 7.2 * max((len(row.written) for row in rows), default=0)
    inside, tall = width - left - right, line * len(rows)

    def at(value: float) -> float:
        return left + inside * axis.place(value)

    svg = []
    for tick, label in zip(axis.ticks, axis.labels):
        svg.append(f'<path class="grid" d="M{at(tick):.1f} {top}v{tall}"/>')
        svg.append(f'<text class="mid" x="{at(tick):.1f}" y="{top + tall + 16}">{label}</text>')
    svg.append(f'<text class="mid" x="{left + inside / 2:.1f}" y="{top + tall + 34}">{escape(x_label)}</text>')
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
        short = row.name if len(row.name) <= LABEL else f"{row.name[: LABEL - 1]}…"
        svg.append(f'<g class="{_style(row.place)}"><title>{escape(row.name)}: {escape(row.written)}</title>')
        svg.append(f'<text class="end name" x="{left - 12:.1f}" y="{y:.1f}" dy=".33em">{escape(short)}</text>')
        if _drawable(row.low) and _drawable(row.high):
            low, high = at(row.low), at(row.high)
            svg.append(f'<path class="whisker" d="M{low:.1f} {y:.1f}H{high:.1f}m0 -4v8M{low:.1f} {y - 4:.1f}v8"/>')
        if _drawable(row.beside):
            svg.append(f'<circle class="ring" cx="{at(row.beside):.1f}" cy="{y:.1f}" r="4.5"/>')
        if _drawable(row.value):
            svg.append(f'<circle class="solid" cx="{at(row.value):.1f}" cy="{y:.1f}" r="4.5"/>')
        svg.append(f'<text class="end" x="{width - 2}" y="{y:.1f}" dy=".33em">{escape(row.written)}</text></g>')
    return _figure(svg, width, top + tall + 42, title, "")


def _figure(svg: Sequence[str], width: int, height: int, title: str, legend: str) -> Markup:
    said = escape(title)
    return Markup(
        f'<figure class="chart"><figcaption>{said}</figcaption>'
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{said}">{"".join(svg)}</svg>{legend}</figure>'
    )


def _style(place: int) -> str:
    return f"c{place % COLOURS} d{place % DASHES}"


def _dot(kind: str, radius: float, at: str, series: Series, said: str) -> str:
    x, y = at.split()
    title = f"<title>{escape(series.name)}: {escape(said)}</title>"
    return f'<circle class="{kind} {_style(series.place)}" cx="{x}" cy="{y}" r="{radius}">{title}</circle>'


def _clean(series: Series, log: bool) -> Series:
    """Without what cannot be drawn."""

    def fits(x: float, *heights: float) -> bool:
        return _drawable(x) and all(_drawable(y) and (not log or y >= 1 / HUGE) for y in heights)

    band = [b for b in series.band if fits(*b)]
    points, marks = ([p for p in some if fits(*p)] for some in (series.points, series.marks))
    return Series(series.name, points, series.place, band, marks)


def _drawable(value: float) -> bool:
    return abs(value) <= HUGE


def _heights(series: Series) -> list[float]:
    return [*(p[1] for p in series.points), *(m[1] for m in series.marks), *(y for b in series.band for y in b[1:])]


def _epochs(xs: Sequence[float]) -> Axis:
    """From the first to the last x, with ticks at whole numbers between them."""
    low, high = (min(xs), max(xs)) if xs else (0.0, 1.0)
    if low == high:
        pad = max(0.5, abs(low) / 10)
        return Axis([low - pad, low, low + pad], ["", f"{low:g}", ""])
    nice = [t for t in linear_axis([low, high], count=6).ticks if low < t < high and t == round(t)]
    gap = (high - low) / 12
    inner = [t for t in nice if t - low > gap and high - t > gap]
    return Axis([low, *inner, high], [f"{t:g}" for t in (low, *inner, high)])


def _near(value: float, others: Sequence[float]) -> bool:
    """Whether an axis that reaches to the value still gives the others a fifth of its length."""
    if not others:
        return True
    spread = max(others) - min(others)
    return spread >= 0.2 * (max(*others, value) - min(*others, value))


def _minus(text: str) -> str:
    return text.replace("-", "−")
