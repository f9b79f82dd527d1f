"""Charts as files: the numbers of the CSV are those drawn, and SVG, PNG and PDF open everywhere."""

from __future__ import annotations

import csv
import html
import io
import json
import re
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from markupsafe import escape
from PIL import Image

from stresslens.charts.chart import Chart, side_by_side
from stresslens.charts.dot_charts import Interval, Mark, interval_chart, map_chart, scatter_chart
from stresslens.charts.heat_charts import heat_chart
from stresslens.charts.line_charts import POINTS_A_LINE, Series, line_chart
from stresslens.core.errors import ConfigError

HOSTILE = "</style><script>alert(1)</script> & \x07\ud800"
LINES = [
    Series(
        HOSTILE, [(1, 0.5), (2, 0.25), (3, 0.2)], 0, band=[(1, 0.4, 0.6), (2, 0.2, 0.3)], marks=[(2, 0.25)]
    ),
    Series("adam", [(1, 0.4), (2, 0.3), (4, 0.1)], 1),
]
CHARTS: dict[str, Chart] = {
    "lines": line_chart(
        LINES, title=HOSTILE, x_label="epoch", y_label="loss", reference=("ideal", [(1, 0.5)])
    ),
    "percent": line_chart(LINES[1:], title="Accuracy", x_label="epoch", y_label="%"),
    "same labels": line_chart(LINES, title="t", x_label="x", y_label="x"),
    "intervals": interval_chart([Interval(HOSTILE, 98, 97, 99, 0, "98.0")], title="t", x_label="accuracy, %"),
    "scatter": scatter_chart([Mark(HOSTILE, 1, 2, 1, 3, 0, "")], title="t", x_label="s", y_label="%"),
    "map": map_chart([(0.0, 1.0), (1.0, 0.0)], [HOSTILE, "b"], [True, False], title="t"),
    "heat": heat_chart(
        np.array([[5, 1], [0, 4]]), [HOSTILE, "b"], [HOSTILE, "b"], title="t", x_label="predicted"
    ),
    "large heat": heat_chart(
        np.eye(60, dtype=np.int64), [f"c{k}" for k in range(60)], ["x"] * 60, title="t", x_label="predicted"
    ),
    "empty": line_chart([], title="t", x_label="x", y_label="y"),
}
CHARTS["side by side"] = side_by_side([CHARTS["lines"], CHARTS["intervals"]], "both")
all_charts = pytest.mark.parametrize("chart", list(CHARTS.values()), ids=list(CHARTS))


def drawn_points(chart: Chart) -> list[tuple[float, float]]:
    """The (x, y) of the lines of a chart with linear axes, from their place in the drawing."""
    left, top, inside, tall = map(float, re.findall(r'data-box="([^"]*)"', chart.page)[0].split())
    x0, x1, _, y0, y1, _ = map(float, re.findall(r'data-ends="([^"]*)"', chart.page)[0].split())
    found = []
    for path in re.findall(r'class="line [^"]*" d="M([^"]*)"', chart.drawing):
        for point in path.split("L"):
            x, y = map(float, point.split())
            found.append((x0 + (x1 - x0) * (x - left) / inside, y0 + (y1 - y0) * (1 - (y - top) / tall)))
    return found


def page_rows(chart: Chart) -> list[list[Any]]:
    """The rows that the script of a page makes of a chart's numbers."""
    data = html.unescape(re.findall(r'data-numbers="([^"]*)"', escape(chart))[0])
    keys, *lines = json.loads(data)
    rows = [keys]
    for name, *columns in lines:
        whole = [column or lines[0][k + 1] for k, column in enumerate(columns)]
        rows += [[name, *values] for values in zip(*whole)]
    return rows


def test_the_csv_has_the_numbers_that_are_drawn() -> None:
    rows = list(csv.DictReader(io.StringIO(str(CHARTS["lines"].to_csv()), newline="")))
    assert list(rows[0]) == ["line", "epoch", "loss", "low", "high"]
    numbers = [(float(row["epoch"]), float(row["loss"])) for row in rows]
    assert numbers == [point for series in LINES for point in series.points]
    assert np.allclose(numbers, drawn_points(CHARTS["lines"]), atol=2e-3)
    assert [row["high"] for row in rows] == ["0.6", "0.3", "", "", "", ""]


def test_a_long_line_has_as_many_rows_as_drawn_points() -> None:
    line = Series("a", [(x, (x * 37 % 101) / 101) for x in range(5000)], 0)
    chart = line_chart([line], title="t", x_label="x", y_label="y")
    points = [(row["x"], row["y"]) for row in chart.rows]
    assert len(points) == POINTS_A_LINE
    assert np.allclose(points, drawn_points(chart), rtol=1e-3, atol=2e-3 * 5000)
    assert set(points) <= set(line.points)


@all_charts
def test_the_page_has_the_same_rows(chart: Chart) -> None:
    if not chart.rows or chart is CHARTS["side by side"]:
        return
    keys, *rows = page_rows(chart)
    assert keys == list(chart.rows[0])
    assert len(rows) == len(chart.rows)
    for row, given in zip(rows, chart.rows):
        for value, full in zip(row, given.values()):
            assert value == (pytest.approx(full, rel=1e-4) if isinstance(full, float) else full)


def test_a_column_of_percentages_says_of_what() -> None:
    assert list(CHARTS["percent"].rows[0]) == ["line", "epoch", "Accuracy, %"]
    assert list(CHARTS["same labels"].rows[0])[1:3] == ["x", "x (2)"]


@all_charts
def test_the_svg_is_well_formed_and_stands_alone(chart: Chart, tmp_path: Path) -> None:
    path = chart.save(tmp_path / "chart.SVG")
    root = ElementTree.parse(path).getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    text = path.read_text(encoding="utf-8")
    assert "var(" not in text
    assert "<script" not in text
    assert "url(" not in text
    for name in dict.fromkeys(name for _, name in chart.keys if name.isalnum()):
        assert any(each.text == name for each in root.iter("{http://www.w3.org/2000/svg}text"))


@all_charts
def test_a_notebook_shows_it_safely(chart: Chart) -> None:
    shown = chart._repr_html_()
    assert "<script" not in shown
    shown.encode("utf-8")
    assert "data-numbers" not in shown
    assert len(repr(chart)) < 400


@all_charts
def test_png_and_pdf_open(chart: Chart, tmp_path: Path) -> None:
    pytest.importorskip("vl_convert")
    with Image.open(chart.save(tmp_path / "chart.png")) as picture:
        picture.load()
        assert picture.size[0] == pytest.approx(1050 * chart.width / 440, abs=2)
        assert len(np.unique(np.asarray(picture.convert("L")))) > 3, "something is drawn"
    pdf = chart.save(tmp_path / "chart.pdf").read_bytes()
    assert pdf.startswith(b"%PDF-")
    assert b"%%EOF" in pdf[-32:]
    assert re.search(rb"/Count 1\b|/Type\s*/Page\b", pdf)


@pytest.mark.parametrize("ending", [".png", ".pdf"])
def test_a_missing_converter_is_named_with_its_command(
    ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    with pytest.raises(ConfigError, match=r"pip install 'stresslens\[figures\]'"):
        CHARTS["lines"].save(tmp_path / f"chart{ending}")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["chart", "chart.jpg", "chart.svgz", ".svg"])
def test_another_ending_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"end it with \.svg, \.png, \.pdf or \.csv"):
        CHARTS["lines"].save(tmp_path / name)


def test_a_csv_file_has_the_numbers_of_the_chart(tmp_path: Path) -> None:
    chart = CHARTS["lines"]
    path = chart.save(tmp_path / "chart.CSV")
    assert path == tmp_path / "chart.CSV"
    assert path.read_bytes() == chart.to_csv(tmp_path / "same.csv").read_bytes()  # type: ignore[union-attr]
    assert len(path.read_text(encoding="utf-8").splitlines()) == len(chart.rows) + 1
