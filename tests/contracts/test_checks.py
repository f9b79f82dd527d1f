"""What every check of a data set keeps to: it finds its planted fault, and nothing in data that are fit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from checked_data import photographs
from faulty_data import FAULTS, warm, with_columns

from stresslens.config import registry
from stresslens.core.data import Data
from stresslens.core.types import Finding
from stresslens.evaluation.data_check import check_data, chosen_findings, shown_images

every = pytest.mark.parametrize("name", registry.names("checks"))
FIT: dict[str, Callable[[], Data]] = {
    "photographs": photographs,
    "warm": warm,
    "two classes": lambda: photographs(100, classes=2, seed=3),
}


@cache
def fit(which: str) -> Data:
    return FIT[which]()


def finding(name: str, data: Data) -> Finding:
    (found,) = chosen_findings(data, [name], base=Path())
    return found


@every
def test_it_finds_what_was_planted(name: str) -> None:
    found = finding(name, FAULTS[name]())
    assert found.status == "sign", found
    assert found.severity in ("minor", "serious")
    assert found.audit == name.replace("_", " ").replace("over exposed", "over-exposed")
    assert found.n > 0
    assert found.remedy


@pytest.mark.breadth
@every
@pytest.mark.parametrize("which", FIT)
def test_it_finds_nothing_in_data_that_are_fit(name: str, which: str) -> None:
    found = finding(name, fit(which))
    assert found.status in ("no sign", "not checked"), found
    assert found.severity == "none"
    assert not found.remedy
    assert found.evidence


@pytest.mark.breadth(7)
@every
def test_it_copes_with_few_small_grey_images_and_training_images_alone(name: str) -> None:
    random = np.random.default_rng(0)
    images = torch.from_numpy(random.integers(0, 256, (4, 1, 2, 3), dtype=np.uint8))
    data = Data.from_arrays(images, [0, 1, 0, 1], validation=0, test=0)
    assert finding(name, data).evidence
    flat = replace(data, train=replace(data.train, images=torch.zeros_like(images)))
    assert finding(name, flat).evidence


@pytest.mark.breadth(2)
@pytest.mark.parametrize("shape", [(1, 1), (1, 8), (2, 8), (3, 3), (4, 5)])
@pytest.mark.parametrize("channels", [1, 3])
def test_thin_images_are_no_error(shape: tuple[int, int], channels: int) -> None:
    random = np.random.default_rng(0)
    images = torch.from_numpy(random.integers(0, 256, (120, channels, *shape), dtype=np.uint8))
    data = Data.from_arrays(images, torch.arange(120) % 2)
    assert {finding.audit for finding in check_data(data)} >= {"borders", "shared marks", "colour order"}


def test_a_file_that_names_two_classes_in_a_row_is_right() -> None:
    data = replace(photographs(classes=2), classes=("cat", "dog"))
    names = with_columns(data, file=lambda name, split: [f"cat_dog_{k}.png" for k in range(len(split))])
    assert finding("file_names", names).status == "no sign"


@pytest.mark.breadth(7)
@every
def test_the_images_it_names_can_be_shown(name: str) -> None:
    data = FAULTS[name]()
    found = finding(name, data)
    total = sum(len(split) for split in data.splits.values())
    assert all(0 <= place < total for place in found.places)
    shown = shown_images(data, [found])
    assert [len(images) for images in shown.values()] == [min(8, len(found.places))] * bool(found.places)


@pytest.mark.parametrize("name", [name for name in FAULTS if name.endswith("_images")])
def test_exactly_the_changed_images_are_named(name: str) -> None:
    found = finding(name, FAULTS[name]())
    assert sorted(found.items) == ["train[0]", "train[1]", "train[2]"]
    assert sorted(found.places) == [0, 1, 2]
