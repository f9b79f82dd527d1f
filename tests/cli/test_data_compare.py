"""`stresslens data compare`: what it prints, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Type = Callable[..., tuple[int, str, str]]


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Two classes of 25 pictures of differing sizes, and 30 brighter pictures without classes."""
    random = np.random.default_rng(0)
    for folder, n, low in (("old/cat", 25, 0), ("old/dog", 25, 0), ("new", 30, 90)):
        (tmp_path / folder).mkdir(parents=True)
        for k in range(n):
            coarse = Image.fromarray(random.integers(low, 255, (5, 5, 3), dtype=np.uint8))
            size = (24 + k % 3, 18)
            coarse.resize(size, Image.Resampling.BICUBIC).save(tmp_path / folder / f"{k:02}.png")
    return tmp_path


def test_two_parts_of_a_data_set(type_: Type) -> None:
    code, out, err = type_("data", "compare", "digits", "digits", "--split-a", "train", "--split-b", "test")
    assert code == 0, err
    said = " ".join(out.split())
    assert "no difference found: AUROC 0.5" in said
    assert "n = 1,078 and 360" in said
    assert "would have been missed" in said
    assert "A: digits (train), 1,078 of 1,078 images compared." in said
    assert "class shares (most: 1)" in said
    assert "test[228] (p 0.002)" in said


@pytest.mark.slow
def test_a_data_set_and_a_folder_without_classes(type_: Type, folders: Path) -> None:
    code, out, err = type_("data", "compare", "old", "new", "--json")
    assert code == 0, err
    assert "the images differ in size" in err
    found = json.loads(out)
    assert found["differs"]
    assert found["sentence"].startswith("B differs from A: a classifier tells them apart (AUROC ")
    assert found["auroc"]["low"] > 0.6
    assert (found["a"]["compared"], found["b"]["compared"]) == (50, 30)
    real = {each["name"] for each in found["properties"] if each["p_corrected"] <= 0.05}
    assert "brightness" in real
    assert found["least_like"][0]["image"].startswith("new/")
    code, out, err = type_("data", "compare", "old", "new", "data.size=16", "--images", "25", "--json")
    assert code == 0, err
    assert json.loads(out)["a"] == {"name": "old", "images": 50, "sampled": 25, "compared": 25}


@pytest.mark.slow
def test_a_run_and_its_network(type_: Type, folders: Path, tmp_path: Path) -> None:
    run = "runs/train/a/seed-0"
    code, _, err = type_("train", "digits", "linear", "train.epochs=1", "--name", "a", "--out", "runs")
    assert code == 0, err
    reads = json.loads((tmp_path / run / "record.json").read_text())["reads_of_test"]
    code, out, err = type_("data", "compare", run, "new", "--json")
    assert code == 0, err
    assert json.loads(out)["a"]["name"] == "digits (train)"
    network = ("--features", "network", "--json", "--split-b", "test")
    code, out, err = type_("data", "compare", run, "digits", *network)
    assert code == 0, err
    assert json.loads(out)["features"] == "network"
    assert json.loads(out)["a"]["name"] == "digits (validation)"
    assert json.loads((tmp_path / run / "record.json").read_text())["reads_of_test"] == reads + 1


@pytest.mark.breadth(4)
@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("digits", "digits"), 2, "A and B are the same images of digits; choose parts with --split-a"),
        (("digits", "new", "--split-a", "tset"), 2, "split 'tset': expected train, validation, test or all"),
        (("digits", "new", "--split-b", "test"), 2, "without classes, which has no test split"),
        (("digits", "new", "--features", "network"), 2, "digits is no run; give a run as A"),
        (("digits", "new", "--features", "hog"), 2, "--features hog: expected pictures or network"),
        (("digits", "nowhere"), 2, "there is no file or folder of that name"),
        (("digits",), 2, "Missing argument 'B'"),
        (("new", "new/00.png"), 3, "a comparison needs at least 20"),
        (("digits", "new", "train.epochs=1"), 2, "only settings of the data are meant here"),
        (("digits", "new", "--images", "3"), 2, "--images"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_what_cannot_be_is_said(
    type_: Type, folders: Path, arguments: tuple[str, ...], code: int, said: str
) -> None:
    found, _, err = type_("data", "compare", *arguments)
    assert found == code, err
    assert said in " ".join(err.replace("│", " ").split())
    assert "Traceback" not in err


def test_the_run_comes_first(type_: Type, tmp_path: Path) -> None:
    code, _, err = type_("train", "digits", "knn", "--name", "a", "--out", "runs")
    assert code == 0, err
    code, _, err = type_("data", "compare", "digits", "runs/train/a/seed-0")
    assert (code, "the run comes first" in " ".join(err.split())) == (2, True)
    code, _, err = type_(
        "data", "compare", "runs/train/a/seed-0", "digits", "--split-b", "test", "--features", "network"
    )
    assert (code, "the run of an estimator" in " ".join(err.split())) == (2, True)
