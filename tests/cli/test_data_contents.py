"""`stresslens data check` and `stats` say first what a data set holds, whatever the sizes of its images."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stresslens.core.errors import SizesDiffer
from stresslens.plugins.datasets.folder import folder

Type = Callable[..., tuple[int, str, str]]


def photos(root: Path, *, sizes: bool = False, parts: tuple[str, ...] = (".",), n: int = 12) -> Path:
    random = np.random.default_rng(0)
    for part in parts:
        for label, name in enumerate(("cat", "dog")):
            (root / part / name).mkdir(parents=True, exist_ok=True)
            for k in range(n):
                high, wide = random.integers(20, 60, 2) if sizes else (24, 24)
                pixels = random.integers(0, 100, (high, wide, 3)) + 150 * label
                Image.fromarray(pixels.astype(np.uint8)).save(root / part / name / f"{k}.png")
    return root


@pytest.mark.breadth(2)
@pytest.mark.parametrize("verb", ["check", "stats"])
@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ((".",), "parts: validation and test drawn from all images"),
        (("train", "test"), "parts: train, test as given; validation drawn from train"),
        (("train", "val"), "parts: train, validation as given; no test part"),
        (("train", "val", "test"), "parts: train, validation, test as given"),
    ],
    ids=["no part", "train and test", "train and val", "all"],
)
def test_the_contents_come_first(
    type_: Type, tmp_path: Path, verb: str, parts: tuple[str, ...], said: str
) -> None:
    photos(tmp_path / "photos", parts=parts)
    code, out, _ = type_("data", verb, "photos")
    assert code == 0
    assert said in out.splitlines()
    shape = f"2 classes, {24 * len(parts)} images of 3×24×24 (channels, height, width), 1,728 values each"
    places = [out.index(each) for each in ("photos", "cat", "all", shape, said)]
    assert places == sorted(places)
    if verb == "check":
        assert places[-1] < out.index("class imbalance")
    total = 24 * len(parts)
    (row,) = [line for line in out.splitlines() if line.startswith("│ all")]
    assert sum(int(cell) for cell in row.split("│")[2:-1]) == total


def test_parts_of_a_table_are_said_too(type_: Type, tmp_path: Path) -> None:
    photos(tmp_path / "photos")
    rows = [
        f"photos/{name}/{k}.png,{name},{'test' if k % 3 == 0 else 'train'}"
        for name in ("cat", "dog")
        for k in range(12)
    ]
    (tmp_path / "photos.csv").write_text("\n".join(["path,label,split", *rows]))
    code, out, _ = type_("data", "stats", "photos.csv")
    assert code == 0
    assert "parts: train, test as given; validation drawn from train" in out.splitlines()


@pytest.mark.parametrize("verb", ["check", "stats"])
def test_images_of_different_sizes_are_checked_and_the_size_for_a_training_is_named(
    type_: Type, tmp_path: Path, verb: str
) -> None:
    photos(tmp_path / "photos", sizes=True)
    code, out, err = type_("data", verb, "photos")
    assert code == 0
    with pytest.raises(SizesDiffer) as differ:
        folder(path="photos")
    side = differ.value.proposed
    assert 20 <= side <= 60
    assert side % 8 == 0
    assert f"stresslens train DATA MODEL data.size={side}" in err
    assert f"images of 3×{side}×{side}" in out
    assert "pixels (width×height); here each is made" in out


def test_what_the_message_says_is_what_train_takes(type_: Type, tmp_path: Path) -> None:
    photos(tmp_path / "photos", sizes=True)
    code, _, err = type_("train", "photos", "linear", "train.epochs=1")
    assert code == 3
    (override,) = [word for word in err.split() if word.startswith("data.size=")]
    code, out, _ = type_("train", "photos", "linear", "train.epochs=1", override)
    assert code == 0
    assert out.startswith(("all runs", "accuracy"))


def test_options_of_the_data_set_are_kept(type_: Type, tmp_path: Path) -> None:
    photos(tmp_path / "photos", sizes=True)
    code, out, _ = type_("data", "stats", "{folder: {path: photos, fit: pad, colours: grey}}")
    assert code == 0
    assert "images of 1×" in out
    assert "(pad)" in out


def test_equal_classes_are_not_called_larger(type_: Type, tmp_path: Path) -> None:
    photos(tmp_path / "photos", parts=("train", "val", "test"))
    _, out, _ = type_("data", "check", "photos")
    assert "the 2 classes have 12 training images each" in out
    assert "1.0 times" not in out


def test_settings_of_the_data_can_be_overridden(type_: Type) -> None:
    code, out, _ = type_("data", "stats", "digits", "data.subset=100", "data.validation=50")
    assert code == 0
    assert re.search(r"all +│ 100 +│ 50 ", out)
    assert type_("data", "stats", "digits", "subset=100")[2].endswith("meant here: data.subset=100\n")
    assert (
        "data.subst=1: digits has no option 'subst'; did you mean 'subset'?"
        in (type_("data", "check", "digits", "data.subst=1")[2])
    )
