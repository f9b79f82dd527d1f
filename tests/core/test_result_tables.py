"""Tables of results: the same numbers as rows, CSV, LaTeX and HTML."""

from __future__ import annotations

import csv
import io
import math
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from stresslens.core.plain_rows import csv_of, data_frame
from stresslens.core.tables import Percent, PercentagePoints, ResultTable, cell_text
from stresslens.core.types import Estimate

ONE = Estimate(0.886, 0.849, 0.915, 360, "Wilson")
NO_INTERVAL = Estimate(0.5, math.nan, math.nan, 3, "")
HOSTILE = '</td><script>alert(1)</script> & "x",\n\u202ey'


def test_bounds_have_plain_names_beside_a_single_estimate() -> None:
    table = ResultTable(("model", "accuracy"), [("a", Percent(ONE)), ("b", None), ("c", NO_INTERVAL)])
    assert table.rows == [
        {"model": "a", "accuracy": 0.886, "low": 0.849, "high": 0.915, "n": 360},
        {"model": "b", "accuracy": None, "low": None, "high": None, "n": None},
        {"model": "c", "accuracy": 0.5, "low": None, "high": None, "n": 3},
    ]


def test_bounds_are_told_apart_beside_several_estimates() -> None:
    (row,) = ResultTable(("model", "f1", "auroc"), [("a", ONE, Percent(ONE))]).rows
    assert list(row) == [
        "model",
        *("f1", "f1 low", "f1 high", "f1 n"),
        *("auroc", "auroc low", "auroc high", "auroc n"),
    ]


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        (Percent(ONE), "88.6\u00a0% (84.9 to 91.5)"),
        (ONE, "0.8860 (0.8490 to 0.9150)"),
        (PercentagePoints(Estimate(-0.017, -0.03, 0.001, 9, "")), "−1.7 (−3.0 to +0.1)"),
        (NO_INTERVAL, "0.5000 (no interval, n = 3)"),
        (None, "–"),
        (12_345, "12\u202f345"),
        (True, "yes"),
        (0.02, "0.02"),
        (1e-9, "1.00e−09"),
        ("word", "word"),
    ],
    ids=["percent", "estimate", "points", "alone", "none", "count", "truth", "radius", "tiny", "word"],
)
def test_cells_are_written_as_in_the_report(cell: object, text: str) -> None:
    assert cell_text(cell) == text  # type: ignore[arg-type]


def test_csv_reads_back_whatever_the_names(tmp_path: Path) -> None:
    rows = ResultTable(("model", "accuracy"), [(HOSTILE, ONE), ("b", None)]).rows
    assert csv_of(rows, tmp_path / "new" / "t.csv") == tmp_path / "new" / "t.csv"
    text = csv_of(rows, None)
    assert (tmp_path / "new" / "t.csv").read_bytes() == str(text).encode()
    first, second = csv.DictReader(io.StringIO(str(text), newline=""))
    assert first == {"model": HOSTILE, "accuracy": "0.886", "low": "0.849", "high": "0.915", "n": "360"}
    assert second["accuracy"] == ""
    assert csv_of([], None) == ""


def test_html_escapes_names_and_says_what_is_left_out() -> None:
    table = ResultTable(("model", HOSTILE), [(HOSTILE, HOSTILE), *(("b", k) for k in range(20))])
    html = table.html(3)
    assert "<script" not in html
    assert "18 more rows" in html
    HTMLParser().feed(html)
    assert "more rows" not in table.html(21)


def test_latex_escapes_what_latex_reads() -> None:
    text = ResultTable(("a_b", "accuracy"), [("50% & #1 {x} ~^\\ <", PercentagePoints(ONE))]).latex
    assert r"50\% \& \#1 \{x\} \textasciitilde{}\textasciicircum{}\textbackslash{} \textless{}" in text
    assert r"+88.6 (+84.9 to +91.5) \\" in text
    assert text.startswith("\\begin{tabular}{lr}\n\\toprule\na\\_b & accuracy \\\\\n\\midrule")
    assert text.endswith("\\bottomrule\n\\end{tabular}\n")


def test_latex_keeps_a_row_on_a_line() -> None:
    body = ResultTable(("name", "n"), [(HOSTILE, 1)]).latex.splitlines()
    assert len(body) == 7


def test_rows_are_plain_without_pandas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    assert data_frame([{"a": 1}]) == [{"a": 1}]


def test_rows_are_a_data_frame_with_pandas() -> None:
    pandas = pytest.importorskip("pandas")
    frame = data_frame(ResultTable(("model", "accuracy"), [("a", ONE)]).rows)
    assert isinstance(frame, pandas.DataFrame)
    assert frame["low"].tolist() == [0.849]
