"""Charts: what is kept, what the axes cover, and that nothing odd breaks them."""

from __future__ import annotations

import math
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import escape

from stresslens.charts.axes import epoch_axis, linear_axis, log_axis, short_number
from stresslens.charts.curve_colours import COLOURS, DASHES
from stresslens.charts.dot_charts import Interval, Mark, interval_chart, scatter_chart
from stresslens.charts.line_charts import Series, decimate, line_chart

anything = st.floats(allow_nan=True, allow_infinity=True)
finite = st.floats(allow_nan=False, allow_infinity=False, min_value=-1e250, max_value=1e250)
pairs = st.lists(st.tuples(anything, anything), max_size=30)


@given(st.lists(finite, max_size=500), st.integers(min_value=4, max_value=100))
def test_decimation_keeps_the_ends_the_extremes_and_the_order(ys: list[float], limit: int) -> None:
    points = [(float(x), y) for x, y in enumerate(ys)]
    kept = decimate(points, limit)
    assert len(kept) <= limit
    assert [x for x, _ in kept] == sorted({x for x, _ in kept})
    assert set(kept) <= set(points)
    if points:
        assert (kept[0], kept[-1]) == (points[0], points[-1])
        heights = [y for _, y in kept]
        assert (min(heights), max(heights)) == (min(ys), max(ys))


def test_decimation_leaves_out_what_is_not_finite() -> None:
    assert decimate([(0, 1.0), (1, math.nan), (2, math.inf), (math.nan, 2.0), (4, 3.0)]) == [
        (0, 1.0),
        (4, 3.0),
    ]


@given(st.lists(finite, min_size=1, max_size=10))
def test_linear_ticks_cover_the_data_in_steps_of_1_2_5(values: list[float]) -> None:
    axis = linear_axis(values)
    tolerance = 1e-9 * max(abs(axis.ticks[0]), abs(axis.ticks[-1]))
    assert axis.ticks[0] <= min(values) + tolerance
    assert axis.ticks[-1] >= max(values) - tolerance
    assert 2 <= len(axis.ticks) <= 9
    assert len(axis.labels) == len(axis.ticks)
    assert all(-1e-6 <= axis.place(v) <= 1 + 1e-6 for v in values)


def test_linear_ticks_by_hand() -> None:
    assert list(linear_axis([0.2, 9.1]).ticks) == [0, 2, 4, 6, 8, 10]
    assert list(linear_axis([97.2, 99.1]).labels) == ["97.0", "97.5", "98.0", "98.5", "99.0", "99.5"]
    assert list(linear_axis([-0.4, 0.4]).labels) == ["−0.4", "−0.2", "0.0", "0.2", "0.4"]
    assert (
        list(linear_axis([0, 60_000]).labels)
        == [short_number(t) for t in (0, 2e4, 4e4, 6e4)]
        == ["0", "20\u202fk", "40\u202fk", "60\u202fk"]
    )
    assert len(set(linear_axis([100_000, 100_004]).labels)) == 5
    assert list(epoch_axis([50, 100_000]).labels) == [
        "50",
        "20\u202fk",
        "40\u202fk",
        "60\u202fk",
        "80\u202fk",
        "100\u202fk",
    ]


@given(st.lists(st.floats(min_value=1e-240, max_value=1e250), min_size=1, max_size=10))
def test_log_ticks_cover_the_data(values: list[float]) -> None:
    axis = log_axis(values)
    assert 2 <= len(axis.ticks) <= 12
    assert all(-1e-6 <= axis.place(v) <= 1 + 1e-6 for v in values)


def test_log_ticks_by_hand() -> None:
    assert list(log_axis([0.03, 2.0]).labels) == ["0.02", "0.05", "0.1", "0.2", "0.5", "1", "2"]
    assert list(log_axis([1e-5, 1.0]).labels) == ["1e−05", "0.0001", "0.001", "0.01", "0.1", "1"]


@given(pairs, pairs, st.lists(st.tuples(anything, anything, anything), max_size=10), st.booleans())
def test_odd_series_are_harmless(points: list, marks: list, band: list, log: bool) -> None:
    chart = escape(
        line_chart(
            [Series("a", points, 0, band, marks), Series("b", [], 1)],
            title="t",
            x_label="x",
            y_label="y",
            log=log,
        )
    )
    HTMLParser().feed(chart)
    assert not re.search(r"(?:[ML ]|[xy]=\")(?:nan|-?inf)", chart)


@given(st.lists(st.tuples(anything, anything, anything), max_size=5), st.none() | anything)
def test_odd_intervals_are_harmless(rows: list, reference: float | None) -> None:
    intervals = [Interval(f"run {i}", *row, place=i, written="x") for i, row in enumerate(rows)]
    line = None if reference is None else (reference, "baseline")
    chart = escape(interval_chart(intervals, title="t", x_label="x", reference=line))
    assert not re.search(r"=\"(?:nan|-?inf)|[MH ](?:nan|-?inf)\b", chart)


@given(st.lists(st.tuples(anything, anything, anything, anything), max_size=8), st.booleans())
def test_odd_marks_are_harmless(rows: list, log: bool) -> None:
    marks = [Mark(f"run {i}", *row, place=i) for i, row in enumerate(rows)]
    chart = escape(scatter_chart(marks, title="t", x_label="x", y_label="y", log=log))
    assert not re.search(r"=\"(?:nan|-?inf)|[MVH ](?:nan|-?inf)\b", chart)


def test_labels_of_marks_do_not_cover_each_other() -> None:
    marks = [Mark("a name", x, y, y - 1, y + 1, 0) for x in (10, 11, 300) for y in (90, 90.1)]
    chart = escape(scatter_chart(marks, title="t", x_label="x", y_label="y"))
    found = re.findall(r'class="name (start|end)" x="([\d.]+)" y="([\d.]+)"', chart)
    boxes = [(float(x) - (38 if side == "end" else 0), float(y)) for side, x, y in found]
    assert len(boxes) == 6
    for i, (x, y) in enumerate(boxes):
        assert all(abs(x - other) >= 38 or abs(y - height) >= 11 for other, height in boxes[:i])


def test_a_reference_line_is_drawn_and_named() -> None:
    figure = line_chart(
        [Series("a", [(10, 20), (90, 70)], 0, band=[(10, 10, 30), (90, 60, 80)])],
        title="t",
        x_label="x",
        y_label="y",
        axes=(linear_axis([0, 100]), linear_axis([0, 100])),
        reference=("ideal", [(0, 0), (100, 100)]),
    )
    chart = escape(figure)
    (line,) = re.findall(
        r'<path class="reference" d="M([\d.]+) ([\d.]+)L([\d.]+) ([\d.]+)"><title>ideal', chart
    )
    left, bottom, right, top = map(float, line)
    assert left < right
    assert bottom > top
    assert f'data-box="{left:.1f} {top:.0f} ' in chart
    assert 'data-ends="0 100 0 0 100 0"' in chart


def test_names_are_escaped_everywhere() -> None:
    hostile = "</title><script>\"'"
    charts = (
        line_chart(
            [Series(hostile, [(0, 1), (1, 2)], 0, marks=[(1, 2)])],
            title=hostile,
            x_label=hostile,
            y_label=hostile,
        ),
        scatter_chart(
            [Mark(hostile, 1, 2, 1, 3, 0, hostile)], title=hostile, x_label=hostile, y_label=hostile
        ),
        interval_chart(
            [Interval(hostile, 1, 0, 2, 0, hostile)], title=hostile, x_label=hostile, reference=(1, hostile)
        ),
    )
    for chart in map(escape, charts):
        assert "<script" not in chart
        assert chart.count("<title>") == chart.count("</title>")


def test_series_differ_in_colour_or_dash() -> None:
    assert math.gcd(COLOURS, DASHES) == 1
    figure = line_chart(
        [Series(str(i), [(0, i), (1, i)], i) for i in range(35)], title="t", x_label="x", y_label="y"
    )
    chart = escape(figure)
    assert len(set(re.findall(r'class="line (c\d d\d)"', chart))) == 35


def test_a_figure_says_what_it_is() -> None:
    figure = line_chart(
        [Series("adam", [(1, 0.5), (2, 0.7)], 0, marks=[(2, 0.7)])],
        title="Accuracy",
        x_label="epoch",
        y_label="%",
    )
    chart = escape(figure)
    assert 'role="img" aria-label="Accuracy"' in chart
    assert "adam: chosen: epoch 2: 0.7" in chart


@pytest.mark.parametrize(("reference", "drawn"), [(94.0, True), (10.3, False)])
def test_a_reference_far_away_is_named_not_drawn(reference: float, drawn: bool) -> None:
    rows = [Interval("a", 95, 94, 96, 0), Interval("b", 97, 96, 98, 1)]
    figure = interval_chart(rows, title="t", x_label="%", reference=(reference, "majority"))
    chart = escape(figure)
    assert ('class="reference"' in chart) is drawn
    assert "majority" in chart


@pytest.mark.parametrize(("reference", "drawn"), [(10.0, False), (95.0, True), (99.9, False)])
def test_a_zoomed_axis_names_a_reference_outside_the_rows_at_its_edge(reference: float, drawn: bool) -> None:
    rows = [Interval("a", 93, 90, 96, 0, "93.0"), Interval("b", 97, 95, 98, 1, "97.0")]
    chart = interval_chart(
        rows, title="t", x_label="%", reference=(reference, "majority class"), zoom=True
    ).drawing
    assert ('class="reference"' in chart) == drawn
    assert "majority class" in chart
    assert ">90<" in chart
    assert ">10<" not in chart
    if not drawn:
        assert ("◂ majority class" if reference < 90 else "majority class ▸") in chart


def test_names_of_marks_stay_inside_the_frame_and_apart() -> None:
    marks = [Mark(f"variant {k}", 1 + k / 5000, 90 + k / 100, 80, 99, k, "") for k in range(13)]
    marks.append(Mark("variant 13", 2, 85, 80, 99, 13, ""))
    chart = scatter_chart(marks, title="t", x_label="x", y_label="accuracy, %").drawing
    labels = re.findall(r'class="name (start|end)" x="([\d.]+)" y="([\d.]+)" dy=".33em">([^<]*)<', chart)
    assert 3 <= len(labels) < 14  # the others have no room; their titles name them
    assert chart.count("<title>variant") == 14
    spans = []
    for anchor, x, y, name in labels:
        long = 6.5 * len(name)
        start = float(x) if anchor == "start" else float(x) - long
        assert 34 <= float(y) <= 280 - 44
        assert start >= 0
        assert start + long <= 440 + 9
        spans.append((start, start + long, float(y)))
    for k, (start, stop, y) in enumerate(spans):
        assert not any(a < stop and start < b and abs(y - other) < 11.9 for a, b, other in spans[:k])
