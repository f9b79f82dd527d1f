"""The run's page on slices that were found by features, from files that were written by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from folders import estimate, write_pictures, write_run
from pages import page_of

HOSTILE = "</td><script>alert(1)</script>"


def searched(*slices: dict[str, Any], gap: float | None = 0.21, why_not: str = "") -> dict[str, Any]:
    counts = {"looked": 180, "tested": 180, "clusters": 10, "candidates": 4, "size": 9, "gap": gap}
    return {"test": {**counts, "slices": list(slices), "why_not": why_not}}


def a_slice(k: int) -> dict[str, Any]:
    figures = {"accuracy": estimate(0.5, n=18), "rest": estimate(0.95, n=162), "gap": estimate(-0.45, n=180)}
    members = [{"index": 3, "image": "test[3]", "truth": 1, "predicted": 2}]
    named = {"classes": [[1, 9], [0, 5]], "mistakes": [[1, 2, 6], [0, -1, 2]], "members": members}
    return {"features": ("network", "pictures")[k], "p": 1e-5, "p_holm": 4e-5, **figures, **named}


def run_with(study: Path, found: dict[str, Any]) -> Path:
    classes = ["ant", HOSTILE, "cat", *"abcdefg"]
    return write_run(study, "cnn", 0, classes=classes, found_slices=found)


def test_each_slice_has_its_figures_classes_errors_and_pictures(tmp_path: Path) -> None:
    run = run_with(tmp_path / "study", searched(a_slice(0), a_slice(1)))
    entries = write_pictures(run / "slices" / "test", 10, 6, 8, 1)
    for place, entry in enumerate(entries):
        entry["kind"] = f"slice {place % 2}"
    (run / "slices" / "test" / "examples.json").write_text(json.dumps(entries))
    html, page = page_of(run)
    said = " ".join(page.text.split())
    assert "2 slices of lower accuracy found by features: 10 clusters of 180 images" in said
    assert "50.0 (48.0 to 52.0)" in said
    assert "−45.0 (−47.0 to −43.0)" in said
    assert "< 0.001" in said
    assert "the network's features" in said
    assert f"Classes: {HOSTILE} ×9, ant ×5. Errors: {HOSTILE} as cat ×6, ant as no answer" in said
    assert HOSTILE not in html
    assert html.count('sheet90"') == 6
    assert "A slice of 9 of the 180 tested images" in said


def test_a_search_that_found_nothing_says_what_it_would_have_missed(tmp_path: Path) -> None:
    _, page = page_of(run_with(tmp_path / "study", searched()))
    said = " ".join(page.text.split())
    assert "no slice of lower accuracy found by features" in said
    assert "is found in four of five cases if its accuracy is 21 points lower than that of the rest." in said
    _, page = page_of(run_with(tmp_path / "blind", searched(gap=None)))
    assert "may be missed whatever its accuracy." in " ".join(page.text.split())
    _, page = page_of(run_with(tmp_path / "few", searched(why_not="30 images are too few")))
    assert "no slices were searched: 30 images are too few." in " ".join(page.text.split())


def test_a_run_that_was_not_searched_has_no_such_part(tmp_path: Path) -> None:
    _, page = page_of(write_run(tmp_path / "study", "cnn", 0))
    assert "Found by features" not in page.text
    assert "slices" in page.sections
    _, page = page_of(write_run(tmp_path / "other", "cnn", 0, slices=None, found_slices=searched()))
    assert "slices" in page.sections
