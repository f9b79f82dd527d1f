"""`stresslens data labels`: what it prints and writes, and what it refuses."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Type = Callable[..., tuple[int, str, str]]

OPTIONS = ("--model", "knn", "--folds", "3", "--seeds", "2")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Dark and bright pictures of 30 each; dark/7.png is bright, and bright/3.png dark."""
    random = np.random.default_rng(0)
    for name in ("bright", "dark"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for k in range(30):
            wrong = (name, k) in (("dark", 7), ("bright", 3))
            level = 40 if (name == "dark") != wrong else 200
            pixels = random.integers(level - 30, level + 30, (8, 8, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{k}.png")
    return tmp_path / "photos"


def test_it_lists_the_files_and_writes_a_page_and_corrections(
    type_: Type, photos: Path, tmp_path: Path
) -> None:
    written = "--page", "labels.html", "--corrections", "labels.csv"
    code, out, err = type_("data", "labels", "photos", *OPTIONS, *written)
    assert code == 0, err
    assert "2 of 60 labels of photos are probably wrong." in out
    assert "dark/7.png" in out
    assert "Of 10 planted flips (uniform) " in out
    assert "corrections: labels.csv" in out
    rows = list(csv.DictReader((tmp_path / "labels.csv").read_text().splitlines()))
    assert {(row["file"], row["given"], row["label"]) for row in rows} == {
        ("dark/7.png", "dark", "bright"),
        ("bright/3.png", "bright", "dark"),
    }
    page = (tmp_path / "labels.html").read_text()
    assert page.count("<img ") == 2
    assert "2 of 60 labels of photos are probably wrong." in page
    assert "planted flips" in page


def test_json_has_all_of_it(type_: Type, photos: Path) -> None:
    code, out, _ = type_("data", "labels", "photos", *OPTIONS, "--flips", "0", "--json")
    document = json.loads(out)
    assert code == 0
    assert {error["image"] for error in document["errors"]} == {"dark/7.png", "bright/3.png"}
    assert set(document["errors"][0]) == {
        "image", "given", "suggested", "probability", "given_probability", "agreeing", "seeds",
    }  # fmt: skip
    assert (document["images"], document["planted"]) == (60, [])
    assert "not measured" in document["not_measured"]


def test_settings_of_the_data_count(type_: Type, photos: Path) -> None:
    """`data.KEY=VALUE` beside settings of the training changes the images that are searched."""
    options = *OPTIONS, "--flips", "0", "--json"
    (photos.parent / "right.csv").write_text("file,label\ndark/7.png,bright\nbright/3.png,drop\n")
    code, out, err = type_("data", "labels", "photos", *options, "data.corrections=right.csv")
    assert code == 0, err
    document = json.loads(out)
    assert (document["images"], document["errors"]) == (59, [])


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("digits", "--flips", "30"), 2, "--flips 30: expected a percentage from 0 to 25"),
        (("digits", "--model", "knnn"), 2, "no model is called 'knnn'"),
        (("digits", "train.epoch=1"), 2, "train.epoch=1: unknown key"),
        (("photos", *OPTIONS, "--folds", "40"), 3, "take fewer folds"),
        (("nowhere",), 2, "there is no file or folder of that name"),
        (("digits", "--folds", "1"), 2, "--folds"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_what_cannot_be_is_said(
    type_: Type, photos: Path, arguments: tuple[str, ...], code: int, said: str
) -> None:
    found, _, err = type_("data", "labels", *arguments)
    assert found == code, err
    assert said in " ".join(err.split())
    assert "Traceback" not in err


@pytest.mark.slow
def test_a_run_is_read_and_takes_no_training_options(type_: Type, photos: Path) -> None:
    code, _, err = type_("train", "photos", "knn", "--name", "a", "--out", "runs")
    assert code == 0, err
    code, out, err = type_("data", "labels", "runs/train/a")
    assert code == 0, err
    assert "of 24 labels of photos" in out
    assert "was not measured" in out
    code, _, err = type_("data", "labels", "runs/train/a", "--seeds", "3")
    assert code == 2
    assert "--seeds: runs/train/a is trained already" in " ".join(err.split())


@pytest.mark.slow
def test_the_data_of_runs_may_have_moved(type_: Type, photos: Path, tmp_path: Path) -> None:
    for model in ("knn", "hog_svm"):
        code, _, err = type_("train", "photos", model, "--name", model, "--out", "runs")
        assert code == 0, err
    photos.rename("moved")
    code, _, err = type_("data", "labels", "runs/train/knn")
    assert code == 3
    assert "say where: --data PATH" in " ".join(err.split())
    code, out, err = type_("data", "labels", "runs/train/knn", "--data", "moved")
    assert code == 0, err
    assert "of 24 labels of moved" in out
    (tmp_path / "c.csv").write_text("file,label\ndark/7.png,bright\n")
    two = "compare", "runs/train/knn", "runs/train/hog_svm"
    code, out, err = type_(*two, "--corrections", "c.csv", "--data", "moved")
    assert "verdicts survive the corrections" in out, err
    for refused in (("data", "labels", "moved", "--data", "moved"), (*two, "--data", "moved")):
        code, _, err = type_(*refused)
        assert code == 2
        assert "--data moved: " in err
