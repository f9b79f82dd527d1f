"""Differences in robustness in a study's page."""

from __future__ import annotations

from pathlib import Path

from attacked import robust_row, with_robustness
from folders import PLAN, write_study
from markupsafe import escape
from pages import page_of

from stresslens.report.load import load_study
from stresslens.report.robust_contrasts import robust_contrast_section


def test_verdicts_on_robustness_are_at_the_head_and_in_a_table(tmp_path: Path) -> None:
    study = write_study(tmp_path, ["a", "b", "c"])
    told = {"contrast": "training", "a": "a", "b": "d", "verdict": "a and d were not compared: other images"}
    with_robustness(
        study, [robust_row("a", "b", 0.05, real=True), robust_row("a", "c", 0.01, real=False), told]
    )
    text = " ".join(page_of(study)[1].text.split())
    head, rest = text.split("Results on the test split")
    assert "training: robustness 1 of 2 real" in head
    assert "b is more robust than a under L∞ 0.05 (fast) by 5 points" in head
    assert "L∞ 0.05, fast" in rest
    assert "a and d were not compared: other images." in rest
    assert PLAN in head
    assert PLAN not in rest
    assert rest.count("not distinguishable") >= 1
    found = robust_contrast_section(load_study(study))
    assert found is not None
    assert len(found.charts) == 1
    assert "no difference" in escape(found.charts[0])


def test_many_contrasts_keep_the_real_ones(tmp_path: Path) -> None:
    study = write_study(tmp_path, ["a", "b"])
    with_robustness(study, [robust_row("a", f"b{k}", 0.05, real=k % 100 == 99) for k in range(500)])
    found = robust_contrast_section(load_study(study))
    assert found is not None
    assert (len(found.rows), found.left_out, found.charts) == (200, 300, [])
    assert sum(row.real for row in found.rows) == 5
