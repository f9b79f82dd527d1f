"""Whole pages with everything on robustness: hostile names, headings and the size."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from attacked import attack, certify, corrupt, robust_row, transfer, with_robustness
from folders import estimate, write_json, write_study
from pages import pages_of

HOSTILE = "<script>alert(1)</script>\"'\u202e</style>"


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


@pytest.mark.slow
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
