"""Names at the ends of lines: apart from each other, inside the frame, and only where they help."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from stresslens.charts.direct_labels import MANY, MOST, direct_labels, room_for_labels, spread
from stresslens.charts.line_charts import Series, line_chart


@given(st.lists(st.floats(0, 200), max_size=17))
def test_names_are_apart_inside_and_in_order(heights: list[float]) -> None:
    placed = spread(sorted(heights), 11.5, 0, 200)
    assert all(b - a >= 11.5 - 1e-6 for a, b in pairwise(placed))
    assert all(-1e-6 <= y <= 200 + 1e-6 for y in placed)


def test_names_with_room_stay_at_their_lines() -> None:
    assert spread([10, 50, 90], 11.5, 0, 100) == [10, 50, 90]


def test_only_many_lines_need_them() -> None:
    assert room_for_labels(["a"] * MANY) == 0
    assert room_for_labels(["a"] * (MANY + 1)) > 0
    assert room_for_labels(["a"] * (MOST + 1)) == 0
    assert direct_labels([], 0, 0, 100) == []


def lines(n: int) -> str:
    series = [Series(f"<line> {k}", [(1, k), (2, 2 * k)], k) for k in range(n)]
    return line_chart(series, title="t", x_label="epoch", y_label="loss").drawing


def test_a_chart_of_many_lines_names_each_at_its_end() -> None:
    assert 'class="direct' not in lines(7)
    chart = lines(9)
    assert chart.count('class="direct') == 9
    assert "&lt;line&gt; 8</text>" in chart
    assert "<line>" not in chart
