"""What is missing, damaged or older is said, and the rest of the page is there."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from folders import estimate, write_json, write_run, write_study
from pages import RUN, STUDY, page_of
from PIL import Image

from stresslens.core.errors import ConfigError, Notice
from stresslens.report.page import write_report


def test_runs_of_an_older_version_still_render(tmp_path: Path) -> None:
    study = write_study(tmp_path, ["sgd", "adam"])
    later = dict.fromkeys(
        ("reliability", "risk_coverage", "slices", "calibration", "findings", "resumed_from")
    )
    table = {name: [estimate(0.9)] * 10 for name in ("precision", "recall", "f1")} | {"support": [36] * 10}
    older = {
        "scores": {"test": {"accuracy": estimate(0.97)}},
        "per_class": {"test": table},
        "data": {"name": "digits"},
    }
    for k, run in enumerate(("sgd", "adam")):
        folder = write_run(study, run, 0, folder=f"run{k}", pictures=0, **later, **older)
        (folder / "examples").mkdir(exist_ok=True)
        Image.new("L", (8, 8), 90).save(folder / "examples" / "000003.png")
        entry = {
            "file": "000003.png",
            "index": 3,
            "truth": 4,
            "predicted": 7,
            "probability": 0.91,
            "kind": "mistake",
        }
        write_json(folder / "examples" / "examples.json", [entry])
    comparison = json.loads((study / "comparison.json").read_text())
    comparison = {key: value for key, value in comparison.items() if key not in ("costs", "matrix")}
    comparison["contrasts"] = [
        {k: v for k, v in row.items() if k != "plan"} for row in comparison["contrasts"]
    ]
    write_json(study / "comparison.json", comparison)
    _, page = page_of(study)
    assert page.sections == [s for s in STUDY.split() if s not in ("matrix", "confidence")]
    _, page = page_of(study / "run0" / "seed-0")
    assert page.sections == [s for s in RUN.split() if s not in ("confidence", "slices", "history")]
    assert "7: 91 %" in page.text
    assert len([style for style in page.raw["style"] if "url(data:image/png" in style]) == 1


@pytest.mark.parametrize("status", ["running", "stopped", "diverged", "something else"])
def test_a_run_that_did_not_finish_is_shown(tmp_path: Path, status: str) -> None:
    study = write_study(tmp_path, ["sgd", "adam"])
    gone = dict.fromkeys(
        ("training", "layers", "scores", "per_class", "confusion", "reliability", "risk_coverage", "slices")
    )
    write_run(study, "adam", 0, folder="run1", status=status, message="the loss is NaN in epoch 3", **gone)
    for _, page in (page_of(study), page_of(study / "run1" / "seed-0")):
        assert status in page.text
        assert "the loss is NaN in epoch 3" in page.text
    assert "1 of 2 runs did not finish" in page_of(study)[1].text


def test_a_listed_run_without_a_record_and_a_damaged_record_are_shown(tmp_path: Path) -> None:
    study = write_study(tmp_path, ["sgd", "adam", "lion"])
    (study / "run1" / "seed-0" / "record.json").write_text('{"format": 1, "stat')
    for file in (study / "run2").rglob("*.*"):
        file.unlink()
    _, page = page_of(study)
    assert "unreadable" in page.text
    assert "not started" in page.text
    assert "lion" in page.text


def test_nothing_finished_yet(tmp_path: Path) -> None:
    write_json(tmp_path / "sgd" / "seed-0" / "record.json", {"format": 1, "status": "running"})
    _, page = page_of(tmp_path)
    assert "No run has finished yet." in page.text
    assert page.sections == ["verdicts", "unfinished", "runs", "reproduce"]
    assert page_of(tmp_path / "sgd" / "seed-0")[1].sections == ["verdicts", "reproduce"]


def test_no_run_is_a_clear_error(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(ConfigError, match="there is no run in"):
            write_report(folder)


def test_a_damaged_comparison_is_named(tmp_path: Path) -> None:
    study = write_study(tmp_path, ["sgd"])
    (study / "comparison.json").write_text('{"format": 2}')
    with pytest.warns(Notice, match=r"without the comparison: .*comparison\.json: format"):
        write_report(study)
    matrix = {"recipes": ["a", "b"], "difference": [[0]], "low": [], "high": [], "p_holm": [], "real": []}
    write_json(study / "comparison.json", {"matrix": matrix})
    with pytest.warns(Notice, match="without the comparison: .*not 2 by 2"):
        write_report(study)


def test_missing_figures_and_cut_off_curves_are_harmless(tmp_path: Path) -> None:
    unknown = {
        "value": None,
        "low": None,
        "high": None,
        "n": 0,
        "method": "bootstrap",
        "level": 0.95,
        "unit": "images",
    }
    scores = {"test": dict.fromkeys(("accuracy", "cross_entropy", "auroc"), unknown)}
    table = {name: [unknown] * 10 for name in ("precision", "recall", "f1", "auroc", "auprc")} | {
        "support": [0] * 10
    }
    empty = {"low": 0.0, "high": 1.0, "n": 0, "confidence": None, "accuracy": None}
    options: dict[str, Any] = {"reliability": {"test": {"bins": [empty], "calibrated": None}}}
    options["risk_coverage"] = {"test": {"coverage": [0.5, 1.0], "risk": [None, None]}}
    options["slices"] = {
        "test": [{"by": "size", "p": None, "rows": [{"value": "none", "n": 0, "accuracy": unknown}]}]
    }
    run = write_run(tmp_path, "adam", 0, scores=scores, per_class={"test": table}, **options)
    (run / "metrics.jsonl").write_text('{"epoch": 1, "loss": null}\n[]\n{"epoch": 2, "loss": NaN}\n{"epoch"')
    for folder in (run, tmp_path):
        _, page = page_of(folder)
        assert "curves" not in page.sections
        assert not re.search(r"\bnan\b", page.text.lower())


def test_several_seeds_without_a_comparison_give_a_mean_over_seeds(tmp_path: Path) -> None:
    for seed in range(3):
        write_run(tmp_path, "adam", seed)
        write_run(tmp_path, "sgd", seed)
    _, page = page_of(tmp_path)
    assert "wider of t over 3 seeds and a run's own" in page.text
    assert "No comparison has been made" in page.text


def test_a_folder_of_several_studies_is_refused(tmp_path: Path) -> None:
    study = write_study(tmp_path / "a", ["sgd"])
    write_study(tmp_path / "b", ["sgd"])
    for folder in (tmp_path, study / "run0"):
        with pytest.raises(ConfigError, match="is not a study's folder"):
            write_report(folder)
