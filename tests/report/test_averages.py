"""Macro and weighted averages below the table of classes."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from folders import estimate, scores, write_run
from pages import page_of

from stresslens.core.run_folder import RunFolder
from stresslens.report.load import read_run
from stresslens.report.per_class import ClassTable, class_table


def of_classes(root: Path, **changes: object) -> ClassTable:
    columns = {
        "precision": [estimate(0.9, n=30), estimate(0.5, n=10)],
        "recall": [estimate(0.8, n=30), estimate(0.6, n=10)],
        "f1": [estimate(0.85, n=30), estimate(0.55, n=10)],
        "support": [30, 10],
    }
    run = write_run(root, "cnn", 0, classes=["cat", "dog"], per_class={"test": columns}, **changes)
    table = class_table(read_run(RunFolder(run)), "test")
    assert table is not None
    return table


def test_averages_by_hand(tmp_path: Path) -> None:
    table = of_classes(tmp_path)
    assert [name for name, _ in table.averages] == ["Macro average", "Weighted average"]
    (_, macro), (_, weighted) = table.averages
    assert macro[0].value == pytest.approx((0.9 + 0.5) / 2)
    assert weighted[0].value == pytest.approx((30 * 0.9 + 10 * 0.5) / 40)
    assert macro[2].value == pytest.approx((0.85 + 0.55) / 2)
    assert macro[0].value - macro[0].low == pytest.approx(math.hypot(0.02, 0.02) / 2)
    assert weighted[0].high - weighted[0].value == pytest.approx(math.hypot(30 * 0.02, 10 * 0.02) / 40)
    assert table.images == 40


def test_averages_that_are_scores_have_the_scores_intervals(tmp_path: Path) -> None:
    (_, macro), (_, weighted) = of_classes(tmp_path, scores={"test": scores(0.75, 40)}).averages
    assert macro[1].value == pytest.approx(0.749)  # balanced accuracy
    assert weighted[1].value == pytest.approx(0.75)  # accuracy


def test_the_page_has_them_below_the_classes(tmp_path: Path) -> None:
    of_classes(tmp_path)
    text = " ".join(page_of(tmp_path / "cnn" / "seed-0")[1].text.split())
    assert "Macro average40" in text.replace(" ", "").replace("Macroaverage", "Macro average")
    assert "Weighted average: every class counts by its images" in text
