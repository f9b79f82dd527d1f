"""`stresslens data stats --gallery`: training images of each class, and what cannot be shown."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Type = Callable[..., tuple[int, str, str]]


def test_every_class_has_a_row_of_training_images(type_: Type, tmp_path: Path) -> None:
    code, out, err = type_("data", "stats", "{digits: {subset: 60}}", "--gallery", "digits.svg", "--json")
    assert code == 0
    counts = json.loads(out)["images"]["train"]
    text = (tmp_path / "digits.svg").read_text()
    assert text.count("<image ") == sum(min(8, n) for n in counts)
    assert all(f">{k}</text>" in text for k in range(10))
    assert "gallery: digits.svg: up to 8 random training images of each class" in err
    again = type_("data", "stats", "{digits: {subset: 60}}", "--gallery", "again.svg")
    assert again[0] == 0
    assert (tmp_path / "again.svg").read_text() == text


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_of_many_classes_the_first_are_shown(type_: Type, tmp_path: Path, mode: str) -> None:
    draws = np.random.default_rng(0)
    for k in range(23):
        (tmp_path / "many" / f"<{k:02d}>").mkdir(parents=True)
        for n in range(5):
            pixels = draws.integers(0, 256, (6, 7, 3), dtype=np.uint8)
            Image.fromarray(pixels).convert(mode).save(tmp_path / "many" / f"<{k:02d}>" / f"{n}.png")
    code, _, err = type_("data", "stats", "many", "--gallery", "many.svg")
    assert code == 0
    assert "of the first 20 classes" in err
    text = (tmp_path / "many.svg").read_text()
    assert text.count("&lt;") == 20
    assert "<00>" not in text


def test_a_class_without_training_images_has_an_empty_row(type_: Type, tmp_path: Path) -> None:
    code, out, err = type_("data", "stats", "{digits: {subset: 5}}", "--gallery", "few.SVG", "--json")
    assert code == 0
    text = (tmp_path / "few.SVG").read_text()
    assert text.count("<image ") == 5
    assert all(f">{k}</text>" in text for k in range(10))
    counts = json.loads(out)["images"]["train"]
    none = ", ".join(str(k) for k in range(10) if counts[k] == 0)
    assert err.strip().endswith(f"of each class; there are none of {none}")


def test_another_format_is_refused_before_the_images_are_read(type_: Type) -> None:
    code, _, err = type_("data", "stats", "no_such_data", "--gallery", "digits.png")
    assert code == 2
    assert "ends in .svg" in err


def test_the_images_that_a_check_finds_are_drawn(type_: Type, tmp_path: Path) -> None:
    for label in "ab":
        (tmp_path / "photos" / label).mkdir(parents=True)
        for k in range(20):
            pixels = np.random.default_rng([k, ord(label)]).integers(0, 256, (12, 12, 3), dtype=np.uint8)
            Image.fromarray(pixels // (8 if k < 2 else 1)).save(tmp_path / "photos" / label / f"{k}.png")
    asked = ("data", "check", "photos", "--check", "dark_images", "--check", "{borders: {apart: 0.9}}")
    code, out, err = type_(*asked, "--gallery", "look.svg")
    assert code == 0
    assert "! minor: dark images: 4 of 40" in out or "✗ serious: dark images: 4 of 40" in out
    assert "✓: borders: 0 of 40" in out
    assert "duplicates" not in out
    assert "gallery: look.svg: up to 4 images of each finding" in err
    text = (tmp_path / "look.svg").read_text()
    assert text.count("<image ") == 4
    assert ">dark images</text>" in text
    code, _, err = type_("data", "check", "photos", "--check", "borders", "--gallery", "none.svg")
    assert "there are no images to look at" in err
    assert not (tmp_path / "none.svg").exists()
    code, _, err = type_("data", "check", "photos", "--check", "blured_images")
    assert code == 2
    assert "blurred_images" in err
