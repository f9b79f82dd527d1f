"""What a Run holds, and what the functions do with it."""

from __future__ import annotations

import json
import math
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from finished_runs import OPTIONS, SMALL, Finished
from PIL import Image

import stresslens as sl
from stresslens.core.errors import ConfigError, DataError


def test_a_run_holds_what_its_files_hold(subjects: Finished) -> None:
    run = sl.open(subjects.run.folder)
    assert isinstance(run, sl.Run)
    assert run.record["scores"] == subjects.run.record["scores"]
    assert run.scores() == subjects.run.scores()
    assert os.fspath(run) == str(run.folder)
    assert (run.status, run.finished, run.split, run.seed) == ("finished", True, "test", 0)
    assert run.classes == tuple("0123456789")
    assert run.config == yaml.safe_load((run.folder / "config.yaml").read_text())
    predictions = run.predictions()
    counts = run.confusion.counts  # type: ignore[union-attr]
    for truth in range(10):
        answers = predictions.scores[predictions.labels == truth].argmax(1)
        assert counts[truth].tolist() == np.bincount(answers, minlength=10).tolist()
    per_class = run.per_class
    assert per_class is not None
    assert [row.name for row in per_class.rows] == list(run.classes)
    assert [row.support for row in per_class.rows] == counts.sum(1).tolist()
    assert run.reliability is not None
    assert sum(each.n for each in run.reliability.bins) == len(predictions.labels)
    assert run.risk_coverage is not None
    assert run.risk_coverage.risk[-1] == pytest.approx(1 - run.scores()["accuracy"].value)
    validation = run.results("validation")
    assert validation.split == "validation"
    assert validation.confusion is not None
    assert validation.confusion.counts.sum() == validation.scores["accuracy"].n
    assert len(run.results("train").slices) == 0
    assert run.results("train").confusion is None
    with pytest.raises(ConfigError, match="has no scores for 'tset'; it has"):
        run.results("tset")


def test_the_history_has_one_row_an_epoch_and_flat_names(tmp_path: Path) -> None:
    options = {**OPTIONS, "epochs": 4, "evaluate_every": 2, "watch": ["train", "validation"]}
    run = sl.train("linear", SMALL, out=tmp_path, **options)
    rows = run.history
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4]
    assert {"loss", "lr", "seconds", "train accuracy", "validation loss", "validation accuracy"} <= set(
        rows[0]
    )
    assert {frozenset(row) for row in rows} == {frozenset(rows[0])}, "a table"
    assert math.isnan(rows[0]["validation accuracy"])
    last = run.scores("validation")["accuracy"].value
    assert max(row["validation accuracy"] for row in rows[1::2]) == pytest.approx(last)
    assert sl.train("knn", SMALL, out=tmp_path).history == []


def test_a_run_says_itself_in_one_line(subjects: Finished) -> None:
    for each in (subjects.run, subjects.estimator, subjects.study):
        assert "\n" not in repr(each)
        assert len(repr(each).replace(str(each.folder), "")) < 120
    assert "finished, test accuracy 0." in repr(subjects.run)


def test_pictures_of_any_size_are_prepared_as_the_runs_own(subjects: Finished, tmp_path: Path) -> None:
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    files: list[Any] = [str(tmp_path / "a.png"), tmp_path / "a.png", Image.fromarray(pixels), pixels]
    for run in (subjects.run, subjects.estimator, subjects.run.folder):
        probabilities = sl.predict(run, files)
        assert probabilities.shape == (4, 10)
        assert (probabilities == probabilities[0]).all()
        assert sl.predict(run, files[0]) == pytest.approx(probabilities[:1], abs=1e-6)
    assert sl.evaluate(subjects.run, files[:1], ["3"])["accuracy"].n == 1
    assert sl.explain(subjects.run, files[:1], "saliency").maps.shape == (1, 8, 8)
    found = sl.attack(subjects.run, files[:1], ["3"], radii=0.5, protocol=["fgsm"], audit=False)
    assert len(found.minimal_radius) == 1
    mixed = sl.predict(subjects.run, [pixels, np.zeros((1, 8, 8), np.float32), np.zeros((8, 8), np.uint8)])
    assert mixed[1].tolist() == mixed[2].tolist()
    assert mixed[0] == pytest.approx(sl.predict(subjects.run, pixels)[0], abs=1e-6)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (["missing.png"], "missing.png cannot be read as an image: No such file"),
        (["."], r"\. is a folder; list its files"),
        (np.zeros((2, 1, 9, 8), np.float32), r"images have shape \(1, 9, 8\).*those of the run \(1, 8, 8\)"),
        (
            [np.zeros((20, 30, 3), np.uint8), np.zeros((1, 9, 8), np.float32)],
            r"image 1 has shape \(1, 9, 8\)",
        ),
        (5, "images are a int|images have shape"),
    ],
    ids=["missing", "folder", "shape", "mixed", "number"],
)
def test_what_is_no_image_of_the_run_is_refused(images: Any, message: str, subjects: Finished) -> None:
    with pytest.raises(sl.DataError, match=message):
        sl.predict(subjects.run, images)


def test_a_run_gives_the_probabilities_of_the_command(subjects: Finished, tmp_path: Path) -> None:
    """Calibrated, as `stresslens predict` prints them; an exported file gives the same."""
    run = subjects.run
    x = np.random.default_rng(0).random((5, 1, 8, 8)).astype(np.float32)
    temperature = run.record["calibration"]["temperature"]
    logits = np.log(sl.predict(run.model(), x)) / temperature
    expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert sl.predict(run, x) == pytest.approx(expected, abs=1e-6)
    exported = sl.export(run, "safetensors", out=tmp_path / "exported").file
    assert sl.predict(exported, x) == pytest.approx(expected, abs=1e-6)


def test_scores_that_the_record_has_are_not_computed_again(subjects: Finished) -> None:
    before = sl.open(subjects.run.folder).record["reads_of_test"]  # type: ignore[union-attr]
    assert sl.evaluate(subjects.run) == subjects.run.scores()
    assert sl.evaluate(subjects.run, split="validation") == subjects.run.scores("validation")
    assert sl.open(subjects.run.folder).record["reads_of_test"] == before  # type: ignore[union-attr]
    with pytest.raises(ConfigError, match="expected 'train', 'validation', 'calibration' or 'test'"):
        sl.evaluate(subjects.run, split="tset")


def test_an_attack_on_own_images_is_kept_and_counted(subjects: Finished) -> None:
    run = subjects.single.runs[0]
    asked: dict[str, Any] = {"radii": ["2/255", 0.1], "protocol": ["fgsm"], "n_images": 30, "audit": False}
    before = sl.open(run.folder)
    assert isinstance(before, sl.Run)
    found = sl.attack(run, **asked)
    again = sl.open(run.folder)
    assert isinstance(again, sl.Run)
    assert again.record["reads_of_test"] == before.record["reads_of_test"] + 1
    assert again.record["robustness"] == [*before.record.get("robustness", []), found.result.key]
    assert found.robust_accuracy("2/255") == found.robust_accuracy(2 / 255)
    recount = sl.verify(run, found)
    assert recount.robust == found.robust_accuracy(0.1)
    with pytest.raises(ConfigError, match="radius 3/255 was not attacked; known are"):
        found.robust_accuracy("3/255")
    with pytest.raises(ConfigError, match="expected a number or a fraction"):
        found.robust_accuracy("a lot")
    with pytest.raises(ConfigError, match="labels and out belong to images of your own"):
        sl.attack(run, out="here", **asked)


def test_images_of_another_shape_are_refused_before_they_pass(subjects: Finished) -> None:
    colour, large = np.zeros((2, 3, 8, 8), np.float32), np.zeros((2, 1, 9, 9), np.float32)
    for x in (colour, large):
        calls = (
            lambda x=x: sl.attack(subjects.run, x, [0, 1], radii=0.1, protocol=["fgsm"]),
            lambda x=x: sl.explain(subjects.run, x, "saliency"),
            lambda x=x: sl.evaluate(subjects.run, x, [0, 1]),
            lambda x=x: sl.predict(subjects.run, x),
            lambda x=x: sl.verify(subjects.run, x, x, [0, 1], eps=0.1),
        )
        for call in calls:
            with pytest.raises(DataError, match="those of the run"):
                call()


def test_curves_side_by_side_are_one_table(subjects: Finished) -> None:
    chart = subjects.run.plot()
    assert len({tuple(row) for row in chart.rows}) == 1
    assert "data-numbers" in str(chart.__html__())


def test_an_explainer_of_ones_own_is_read_from_where_it_was_kept(
    subjects: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = """
from stresslens.core.maps import Maps
def own(model, x):
    return Maps(x.sum(1).float().cpu(), False, "brightness")
"""
    (tmp_path / "mine.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    found = sl.explain(subjects.run, explainer="mine.py:own", n_images=2, trust=True)
    assert found.maps.shape == (2, 8, 8)


def test_numbers_agree_with_their_nouns(subjects: Finished) -> None:
    assert repr(subjects.single).endswith(": 1 variant, 1 run>")
    assert repr(subjects.study).endswith(": 2 variants, 2 runs>")
    assert repr(subjects.run.history).startswith("RowList(1 row of epoch")


def test_the_pictures_of_mistakes_have_a_heading(subjects: Finished) -> None:
    html = subjects.run._repr_html_()
    assert re.search(r"<p><bdi>\d mistakes? of the images that the run keeps, truth → answer:", html)


def test_a_module_that_cannot_take_a_picture_is_told_why(subjects: Finished, tmp_path: Path) -> None:
    Image.new("RGB", (80, 60)).save(tmp_path / "why.png")
    assert sl.predict(subjects.run, [tmp_path / "why.png"]).shape == (1, 10)
    with pytest.raises(ConfigError, match="a module gets images as they are, only a run resizes pictures"):
        sl.predict(subjects.net, [tmp_path / "why.png"])


def test_a_record_shows_itself_in_one_line(subjects: Finished) -> None:
    record = sl.open(subjects.run.folder).record
    assert repr(record).startswith("Record(finished; ")
    assert len(repr(record)) < 400
    assert dict(record) == json.loads((subjects.run.folder / "record.json").read_text())
    assert json.loads(json.dumps(record)) == record
    with pytest.raises(KeyError, match="did you mean 'scores'"):
        record["score"]
