"""Prediction sets of a run's page, from predictions that were written by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from folders import write_run
from pages import Page, page_of

from stresslens.core.run_folder import RunFolder
from stresslens.evaluation.guarantee_scores import score_on_split
from stresslens.evaluation.guarantees import wanted
from stresslens.evaluation.record import read_record
from stresslens.evaluation.scores import Predictions
from stresslens.report.load import read_run
from stresslens.report.prediction_sets import SetsSection, prediction_sets_section

CLASSES = ["ant", "bee", "cat"]
HOSTILE = "</td><script>alert(1)</script>"


def drawn(n: int, seed: int, *, sure: float = 1.5) -> Predictions:
    random = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    logits = random.normal(size=(n, 3)) + sure * np.eye(3)[labels]
    return Predictions(logits, labels, np.arange(n))


def run_with(study: Path, splits: dict[str, Predictions], **record: Any) -> Path:
    sizes = {name: len(each.labels) for name, each in splits.items()}
    data = {"name": "insects", "splits": dict.fromkeys(splits, "0"), "sizes": sizes}
    run = write_run(
        study, "cnn", 0, **{"classes": CLASSES, "data": data, "per_class": {}, "confusion": {}} | record
    )
    (run / "predictions").mkdir(exist_ok=True)
    for name, each in splits.items():
        each.save(run / "predictions" / f"{name}.npz")
    return run


def found(run: Path) -> SetsSection:
    section = prediction_sets_section(read_run(RunFolder(run)), "test")
    assert section is not None
    return section


def text_of(run: Path) -> str:
    html, page = page_of(run)
    assert "sets" in page.sections
    assert HOSTILE not in html
    section = html.partition('<section id="sets">')[2].partition("</section>")[0]
    return " ".join(Page(section).text.split())


def test_the_figures_are_those_of_evaluate(tmp_path: Path) -> None:
    run = run_with(tmp_path / "study", {"calibration": drawn(300, 0), "test": drawn(600, 1)})
    section = found(run)
    assert (section.calibrating, section.source, section.caveat) == (300, "calibration images", "")
    folder = RunFolder(run)
    for each in section.at:
        scores = score_on_split(wanted(each.wanted), folder, read_record(folder), "test").sets["LAC"]
        assert each.scores == scores
        assert each.scores.coverage.low < each.wanted + 0.03
        assert each.single.value == scores.sizes[1] / 600
        worst = min(scores.by_class, key=lambda e: e.value)
        assert each.lowest_coverage == worst
        assert each.expected is not None
        low, high = each.expected
        assert low < each.wanted < high
    said = text_of(run)
    assert "on 600 test images. 300 calibration images calibrate them, which were set aside" in said
    assert f"{100 * section.at[0].scores.coverage.value:.1f}" in said
    assert "Coverage of each class" in said


def test_validation_images_calibrate_with_what_they_chose(tmp_path: Path) -> None:
    training = {"epochs": 3, "chosen_epoch": 2, "select": "accuracy"}
    run = run_with(tmp_path / "study", {"validation": drawn(90, 0), "test": drawn(60, 1)}, training=training)
    assert found(run).source == "validation images"
    said = text_of(run)
    assert "90 validation images calibrate them. The same images chose the epoch" in said
    assert "train with train.calibration=0.5 to set images aside." in said


def test_the_temperature_is_part_of_the_sets(tmp_path: Path) -> None:
    splits = {"calibration": drawn(200, 0), "test": drawn(200, 1)}
    cold = found(run_with(tmp_path / "cold", splits))
    calibration = {"temperature": 3.0, "fitted_on": "validation", "n": 50}
    warm = found(run_with(tmp_path / "warm", splits, calibration=calibration))
    assert [each.scores.sizes for each in warm.at] != [each.scores.sizes for each in cold.at]


def test_few_calibration_images_give_sets_of_all_classes(tmp_path: Path) -> None:
    run = run_with(tmp_path / "study", {"calibration": drawn(12, 0), "test": drawn(30, 1)})
    first, second = found(run).at
    assert first.expected is not None
    assert second.expected is None
    assert second.scores.size.value == 3
    assert "Every set has all classes: 95 % needs at least 19 calibration images." in text_of(run)


def test_many_classes_are_cut_to_those_of_the_lowest_coverage(tmp_path: Path) -> None:
    random, k = np.random.default_rng(0), 25
    splits = {}
    for name in ("calibration", "test"):
        labels = np.arange(500) % k
        logits = random.normal(size=(500, k)) + 3 * np.eye(k)[labels]
        splits[name] = Predictions(logits, labels, np.arange(500))
    classes = [HOSTILE, *(f"c{c}" for c in range(1, k))]
    run = run_with(tmp_path / "study", splits, classes=classes)
    section = found(run)
    assert (len(section.classes), section.left_out) == (20, 5)
    lowest = [min(each.value for each in row[2]) for row in section.classes]
    assert lowest == sorted(lowest)
    assert "has 5 more" in text_of(run)


def test_without_images_that_calibrate_there_is_no_section(tmp_path: Path) -> None:
    _, page = page_of(run_with(tmp_path / "study", {"test": drawn(30, 1)}))
    assert "sets" not in page.sections
    answers = Predictions(np.eye(3)[np.arange(30) % 3], np.arange(30) % 3, np.arange(30), "answers")
    _, page = page_of(run_with(tmp_path / "answers", {"validation": answers, "test": answers}))
    assert "sets" not in page.sections


def test_damaged_predictions_are_a_sentence(tmp_path: Path) -> None:
    run = run_with(tmp_path / "study", {"calibration": drawn(60, 0), "test": drawn(60, 1)})
    (run / "predictions" / "calibration.npz").write_bytes(b"no archive")
    assert "The sets are left out: " in text_of(run)


@pytest.mark.parametrize("split", ["calibration", "test"])
def test_the_page_is_made_anew_where_the_predictions_change(tmp_path: Path, split: str) -> None:
    from stresslens.report.page import write_report

    run = run_with(tmp_path / "study", {"calibration": drawn(60, 0), "test": drawn(60, 1)})
    before = write_report(run, anew=False).read_text()
    assert write_report(run, anew=False).read_text() == before
    drawn(60, 7).save(run / "predictions" / f"{split}.npz")
    assert write_report(run, anew=False).read_text() != before
