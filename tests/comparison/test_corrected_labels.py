"""Whether the verdicts of a study, of variants and of runs survive corrected test labels."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import stresslens as sl
from stresslens.comparison.folders import compare_corrected, compare_folders
from stresslens.config.study_file import expand_study
from stresslens.core.errors import ConfigError, DataError
from stresslens.core.run_folder import RunFolder
from stresslens.evaluation.scores import Predictions
from stresslens.study import pipeline

DATA = {"test": 80, "validation": 40, "subset": 200}
STUDY: dict[str, Any] = {
    "study": "two",
    "data": {"digits": DATA},
    "model": "linear",
    "train": {"lr": 0.05, "threads": 1, "precision": "float32"},
    "runs": {"trained": {"train.epochs": 10}, "untrained": {"train.epochs": 0}},
    "contrasts": {"training": {"pairs": [["untrained", "trained"]]}},
}


def carried_out(out: Path, **keys: Any) -> Path:
    return pipeline.run(expand_study({**STUDY, **keys}, name="two", base=out), out=out)


def predictions(folder: Path, run: str, seed: int = 0) -> Predictions:
    return Predictions.of_arrays(RunFolder(folder / run / f"seed-{seed}").load_predictions("test"))


def write(path: Path, *rows: tuple[str, Any]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("file", "label"), *rows])
    return path


def test_corrections_that_turn_a_verdict(tmp_path: Path) -> None:
    """With the answers of the untrained net as labels, it is right everywhere."""
    folder = carried_out(tmp_path)
    answers = predictions(folder, "untrained").scores.argmax(1)
    labels = predictions(folder, "untrained").labels
    file = write(tmp_path / "c.csv", *((f"test[{k}]", answer) for k, answer in enumerate(answers)))
    found = compare_corrected([folder], file)
    assert found.comparison.recipes["untrained"].value == 1
    assert found.changes is not None
    assert found.changes.facts["corrected"] == (answers != labels).sum()
    touched, survive, change = found.changes.sentences
    assert touched.startswith(f"c.csv: {(answers != labels).sum()} test labels corrected, 0 test images")
    assert survive == "0 of 1 verdicts survive the corrections."
    assert change.startswith("Before: trained is better than untrained by ")
    assert ". Now: untrained is better than trained by " in change
    (before,) = compare_folders([folder]).comparison.contrasts
    document = found.as_json()["corrections"]
    assert document["before"] == [before.model_dump(mode="json", exclude_unset=True)]
    two = compare_corrected([folder / "trained" / "seed-0", folder / "untrained" / "seed-0"], file)
    assert two.regressions == []
    assert two.changes is not None
    assert two.changes.changed


@pytest.mark.slow
def test_changes_have_the_short_names_of_the_table(
    tmp_path: Path, type_: Callable[..., tuple[int, str, str]]
) -> None:
    """Overrides that all runs share are in the names of the folders, and not in the short names."""
    values = {**STUDY, "train": {**STUDY["train"], "lr": 0.04}}
    folder = pipeline.run(expand_study(values, ["train.lr=0.05"], name="two", base=tmp_path), out=tmp_path)
    (before,) = compare_folders([folder]).comparison.contrasts
    assert before.a == "untrained,train.lr=0.05"
    answers = predictions(folder, before.a).scores.argmax(1)
    file = write(tmp_path / "c.csv", *((f"test[{k}]", answer) for k, answer in enumerate(answers)))
    code, out, err = type_(str(folder), "--corrections", str(file))
    assert code == 0, err
    assert "Before: trained is better than untrained by " in out
    assert ". Now: untrained is better than trained by " in out
    assert out.count("train.lr") == 1


@pytest.mark.slow
def test_the_accuracy_is_that_of_the_corrected_labels(tmp_path: Path) -> None:
    folder = carried_out(tmp_path)
    of_run = predictions(folder, "trained")
    right = of_run.scores.argmax(1) == of_run.labels
    wrong = np.flatnonzero(~right)
    rows = [(f"test[{wrong[0]}]", of_run.scores[wrong[0]].argmax()), (f"test[{wrong[1]}]", "drop")]
    file = write(tmp_path / "c.csv", *rows, ("train[0]", "drop"))
    found = sl.compare(folder, corrections=file)
    assert found["recipes"]["trained"]["n"] == 79
    assert found["recipes"]["trained"]["value"] == pytest.approx((right.sum() + 1) / 79)
    assert (found["corrections"]["corrected"], found["corrections"]["dropped"]) == (1, 1)
    assert found["corrections"]["changed"] == []
    assert "1 of 1 verdicts survive the corrections." in found["corrections"]["sentences"]


@pytest.mark.slow
def test_a_study_with_folds(tmp_path: Path) -> None:
    """Every image is a test image of one fold, by whose name it is corrected."""
    folder = carried_out(tmp_path, repeats={"folds": 3})
    before = predictions(folder, "trained", 1)
    file = write(tmp_path / "c.csv", *((f"train[{k}]", "drop") for k in range(30)))
    found = compare_corrected([folder], file)
    assert found.changes is not None
    assert (found.changes.facts["corrected"], found.changes.facts["dropped"]) == (0, 30)
    assert len(found.comparison.contrasts) == 1
    assert found.comparison.contrasts[0].difference.n == len(before.labels) - 10


def test_what_does_not_belong_to_the_study_is_refused(
    tmp_path: Path, type_: Callable[..., tuple[int, str, str]]
) -> None:
    folder = carried_out(tmp_path)
    with pytest.raises(DataError, match=r"c\.csv:2: there is no image test\[900\]"):
        compare_corrected([folder], write(tmp_path / "c.csv", ("test[900]", "3")))
    everything = [(f"test[{k}]", "drop") for k in range(80)]
    with pytest.raises(ConfigError, match="drops every test image"):
        compare_corrected([folder], write(tmp_path / "c.csv", *everything))
    file = write(tmp_path / "c.csv", ("test[0]", "drop"))
    code, out, err = type_(str(folder), "--corrections", str(file))
    assert code == 0, err
    assert "1 of 1 verdicts survive the corrections." in out
    code, _, err = type_(str(folder), "--corrections", str(file), "--metric", "robust@0.1")
    assert code == 2
    assert "labels are corrected for the accuracy only" in " ".join(err.split())
    code, _, err = type_(str(folder), "--corrections", "none.csv")
    assert code == 3
    assert "corrections: none.csv cannot be read" in " ".join(err.split())
