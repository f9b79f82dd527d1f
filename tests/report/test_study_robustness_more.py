"""Differences in robustness, transfers, corruptions and certificates in a study's page."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from attacked import attack, certify, corrupt
from folders import PLAN, estimate, write_json, write_study
from pages import page_of, pages_of

from stresslens.core.errors import ConfigError
from stresslens.metrics.intervals import wilson
from stresslens.report.certificates import certificate_sections
from stresslens.report.corruptions import corruption_section
from stresslens.report.load import load_study
from stresslens.report.page import write_report
from stresslens.report.robust_contrasts import robust_contrast_section
from stresslens.report.transferability import transfer_tables

HOSTILE = "<script>alert(1)</script>\"'\u202e</style>"


def robust_row(a: str, b: str, value: float, *, real: bool, **more: Any) -> dict[str, Any]:
    curve = [{"eps": eps, "difference": estimate(value * eps / 0.1)} for eps in (0.05, 0.1)]
    verdict = (
        f"{b} is more robust than {a} under L∞ 0.05 (fast) by 5 points"
        if real
        else f"{a} and {b} are not distinguishable"
    )
    row = {
        "contrast": "training",
        "a": a,
        "b": b,
        "norm": "linf",
        "protocol": "fast",
        "eps": 0.05,
        "difference": estimate(value),
    }
    return (
        row
        | {"p": 0.01, "p_holm": 0.02, "real": real, "verdict": verdict, "plan": PLAN, "curve": curve}
        | more
    )


def with_robustness(study: Path, rows: list[dict[str, Any]]) -> None:
    comparison = json.loads((study / "comparison.json").read_text())
    write_json(study / "comparison.json", comparison | {"robustness": rows})


def transfer(names: list[str], *, eps: float = 0.1) -> dict[str, Any]:
    cells = [
        [wilson(0 if i == j else 60 + 5 * (i % 4), 100).as_json() for j in range(len(names))]
        for i in range(len(names))
    ]
    group = {
        "norm": "linf",
        "protocol": "fast",
        "key": "k",
        "eps": eps,
        "sources": names,
        "targets": names,
        "accuracy": cells,
    }
    return {
        "format": 1,
        "fingerprint": "f",
        "groups": [group],
        "left_out": ["own: not run unless --trust"],
        "findings": [],
    }


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
    assert rest.count(PLAN) >= 1
    found = robust_contrast_section(load_study(study))
    assert found is not None
    assert len(found.charts) == 1
    assert "no difference" in found.charts[0]


def test_many_contrasts_keep_the_real_ones(tmp_path: Path) -> None:
    study = write_study(tmp_path, ["a", "b"])
    with_robustness(study, [robust_row("a", f"b{k}", 0.05, real=k % 100 == 99) for k in range(500)])
    found = robust_contrast_section(load_study(study))
    assert found is not None
    assert (len(found.rows), found.left_out, found.charts) == (200, 300, [])
    assert sum(row.real for row in found.rows) == 5


def test_the_transfer_matrix_and_what_was_left_out(tmp_path: Path) -> None:
    study = write_study(tmp_path, ["a", "b"])
    write_json(study / "transfers.json", transfer(["a", "b"]))
    html, page = page_of(study)
    (grid,) = transfer_tables(load_study(study))
    assert [cell.estimate.value if cell else None for _, cells in grid.rows for cell in cells] == [
        0,
        0.6,
        0.65,
        0,
    ]
    assert [cell.shade for _, cells in grid.rows for cell in cells if cell] == [9, 4, 4, 9]
    assert 'class="q9 own"' in html
    assert "Left out: own: not run unless --trust" in page.text
    assert "radii up to 0.1" in page.text


def test_empty_cells_and_findings(tmp_path: Path) -> None:
    study = write_study(tmp_path, ["a", "b"])
    found = transfer(["a", "b"])
    found["groups"][0]["accuracy"][0][1] = None
    sign = {
        "audit": "saved adversarials",
        "status": "sign",
        "severity": "serious",
        "evidence": "3 of 90",
        "n": 90,
    }
    write_json(study / "transfers.json", found | {"findings": [sign]})
    _, page = page_of(study)
    assert "saved adversarials serious 3 of 90" in " ".join(page.text.split())
    (study / "transfers.json").write_text('{"format": 2}')
    with pytest.raises(ConfigError, match=r"transfers\.json: format"):
        write_report(study)


def test_corruptions_and_certificates_of_every_recipe(tmp_path: Path) -> None:
    study = write_study(tmp_path, ["a", "b"], seeds=2)
    for k in range(2):
        for seed in range(2):
            corrupt(study / f"run{k}" / f"seed-{seed}", start=0.9 - 0.1 * k)
    radius = certify(study / "run1" / "seed-0", top=0.93)
    certify(study / "run0" / "seed-0", top=0.4)
    _, page = page_of(study)
    assert "Corruptions" in page.text
    assert "Certified accuracy, Smoothing, L2 (sigma 0.25)" in page.text
    read = load_study(study)
    found = corruption_section(read)
    assert found is not None
    assert [(name, round(clean.value, 2) if clean else 0) for name, clean, _ in found.means] == [
        ("a", 0.9),
        ("b", 0.8),
    ]
    assert len(found.charts.charts) == len(found.grids) == 4
    assert [len(cells) for _, cells in found.grids[0].rows] == [5, 5]
    (certified,) = certificate_sections(read)
    assert [row[:3] for row in certified.rows] == [("a", 100, 7), ("b", 100, 7)]
    assert certified.radii == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])
    for r, found_at, lower in zip(certified.radii, certified.rows[1][4], certified.rows[0][4]):
        assert found_at is not None
        assert lower is not None
        assert found_at.value == np.mean(radius > r) >= lower.value


def test_certificates_without_arrays_have_the_radii_of_their_curve(tmp_path: Path) -> None:
    study = write_study(tmp_path, ["a"])
    certify(study / "run0" / "seed-0", top=0.93)
    (study / "run0" / "seed-0" / "certificates" / "smoothing-0a1b2c3d" / "result.npz").unlink()
    (certified,) = certificate_sections(load_study(study))
    assert [estimate is None for estimate in certified.rows[0][4]] == [False, True, True, True, True, True]


def everything(root: Path, runs: list[str], *, seeds: int = 1, **options: Any) -> Path:
    study = write_study(root, runs, seeds=seeds, **options)
    for k in range(len(runs)):
        for seed in range(seeds):
            run = study / f"run{k}" / f"seed-{seed}"
            attack(run, seed=k)
            attack(
                run, seed=k, norm="l2", protocol="standard", radii=[0.25 * r for r in range(12)], strength=1.0
            )
            corrupt(run)
            certify(run)
    with_robustness(study, [robust_row(runs[0], other, 0.05, real=True) for other in runs[1:]])
    write_json(study / "transfers.json", transfer(runs))
    return study


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    study = everything(tmp_path, [HOSTILE, "' onload='alert(1)"])
    finding = {
        "audit": HOSTILE,
        "status": "sign",
        "severity": "serious",
        "evidence": HOSTILE,
        "n": 1,
        "remedy": HOSTILE,
        "items": [HOSTILE],
    }
    run = study / "run0" / "seed-0"
    file = run / "robustness" / "linf-fast-0a1b2c3d" / "result.json"
    content = json.loads(file.read_text())
    alone = [
        {
            "label": HOSTILE,
            "attack": {HOSTILE: {}},
            "rows": [{"eps": 0.1, "accuracy": estimate(0.5), "outside": 3}],
        }
    ]
    attacks = [{"name": HOSTILE, "label": HOSTILE, "options": {HOSTILE: HOSTILE}}]
    write_json(
        file,
        content
        | {"findings": [finding], "alone": alone, "protocol": HOSTILE, "attacks": attacks, "key": HOSTILE},
    )
    examples = file.parent / "examples" / "examples.json"
    write_json(examples, [entry | {"attack": HOSTILE} for entry in json.loads(examples.read_text())])
    (run / "certificates" / "smoothing-0a1b2c3d" / "result.json").write_text(
        f'{{"{json.dumps(HOSTILE)[1:-1]}'
    )
    left = transfer(["a", "b"])
    write_json(study / "transfers.json", left | {"left_out": [HOSTILE]})
    for html, page in pages_of(study):
        assert html.count("<script>") == html.count("</script>") == 1
        assert [name for _, attrs in page.tags for name in attrs if name.startswith("on")] == []
        assert "alert(1)" in page.text


def test_everything_is_named_and_headings_go_down_one_level_at_a_time(tmp_path: Path) -> None:
    for html, page in pages_of(everything(tmp_path, ["a", "b", "c"], seeds=2)):
        levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
        assert all(after <= before + 1 for before, after in pairwise(levels))
        tags = [tag for tag, _ in page.tags]
        assert tags.count("table") == tags.count("caption") > 0
        assert all(attrs.get("scope") for tag, attrs in page.tags if tag == "th")
        assert all(
            attrs.get("aria-label") for _, attrs in page.tags if attrs.get("role") in ("img", "region")
        )
        ids = page.attributes("id")
        assert len(set(ids)) == len(ids)
        assert {href[1:] for href in page.attributes("href") if href.startswith("#")} <= set(ids)
        assert "://" not in html.replace("http://www.w3.org/2000/svg", "")


@pytest.mark.slow
def test_many_attacked_runs_stay_below_two_megabytes(tmp_path: Path) -> None:
    study = everything(tmp_path, [f"recipe-{k}" for k in range(24)], seeds=3, pictures=60)
    assert all(len(html.encode()) < 2_000_000 for html, _ in pages_of(study))
