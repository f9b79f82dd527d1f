"""`stresslens data card`: what is published of a set, what a user's own set holds, and what is chance."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from stresslens.config import registry
from stresslens.core.published_facts import UNKNOWN, PublishedFacts
from stresslens.evaluation.dataset_card import card_of
from stresslens.plugins.datasets._facts import FACTS, VARIANTS, torchvision_facts
from stresslens.plugins.datasets._torchvision_sets import SETS, torchvision_set

Type = Callable[..., tuple[int, str, str]]


def unloaded() -> None:
    raise AssertionError("a card of published figures reads no file")


def test_the_card_of_a_published_set_needs_no_files(type_: Type) -> None:
    code, out, _ = type_("data", "card", "cifar10")
    assert code == 0
    lines = dict(line.split(": ", 1) for line in out.strip().splitlines())
    assert lines["data set"] == "CIFAR-10 (Krizhevsky 2009)"
    assert lines["images as published"] == "train 50,000, test 10,000"
    assert lines["classes"] == "10"
    assert lines["licence as published"] == UNKNOWN
    assert lines["copies of test images in train"].startswith(
        "3.3 % of the test images have a near duplicate"
    )
    assert "Northcutt" in lines["wrong labels"]
    assert lines["noise floor"].startswith(
        "10,000 test images: at an accuracy of 95 %, 0.4 points are chance, at 80 % 0.8, at 50 % 1.0"
    )


def test_the_points_of_chance_are_half_an_interval() -> None:
    card = card_of("mnist", unloaded)  # type: ignore[arg-type]
    for accuracy, points in card.chance.items():
        normal = 100 * 1.96 * math.sqrt(accuracy * (1 - accuracy) / 10_000)
        assert points == pytest.approx(normal, rel=0.02)
    small = card_of("digits", unloaded)  # type: ignore[arg-type]
    assert small.test_images == 360
    assert small.chance[0.95] > 2


def test_the_card_of_ones_own_data_counts_them(type_: Type) -> None:
    x, y = np.zeros((40, 5, 6, 3), np.uint8), np.arange(40) % 2
    np.savez("mine.npz", x_train=x, y_train=y, x_test=x[:10], y_test=y[:10])
    code, out, _ = type_("data", "card", "mine.npz", "--json")
    assert code == 0
    found = json.loads(out)
    assert found["images"] == {"train": 32, "validation": 8, "test": 10}
    assert found["published"] is False
    assert found["pictures"] == "6×5, 3 channels"
    assert found["licence"] == UNKNOWN
    assert found["test_images"] == 10
    assert set(found["points_of_chance_at_accuracy"]) == {"0.95", "0.8", "0.5"}
    np.savez("mine.npz", x_train=x, y_train=y)
    code, out, _ = type_("data", "card", "mine.npz")
    assert "noise floor: there are no test images" in out


@pytest.mark.parametrize("name", ["cifra10", "{torchvision: {name: MNIT}}", "no.npz"])
def test_a_name_that_is_not_there_is_told(type_: Type, name: str) -> None:
    code, _, err = type_("data", "card", name)
    assert code == 2
    assert "did you mean" in err or "no file or folder of that name" in err


def test_every_set_of_torchvision_has_facts_of_its_parts() -> None:
    assert set(FACTS) == {*SETS, "CelebA"}
    for name, facts in FACTS.items():
        source, chosen = torchvision_set(name, "Smiling" if name == "CelebA" else None)
        parts = {str(part) for part in source.variants[chosen]}
        if parts == {"None"}:
            assert set(facts.images) == {"all"}
        else:
            assert {"test" if part == facts.test else part for part in facts.images} == parts
        assert facts.source
        assert all(count > 0 for count in facts.images.values())
    for name, variant in VARIANTS:
        assert torchvision_facts(name, variant) is not None
    assert torchvision_facts("INaturalist", "2018") is None


def test_facts_are_asked_with_a_sets_options() -> None:
    bound = registry.resolve("datasets", {"emnist": {"variant": "letters"}})
    facts = bound.answer_beside("facts")
    assert isinstance(facts, PublishedFacts)
    assert (facts.classes, dict(facts.images)) == (26, {"train": 124_800, "test": 20_800})


@pytest.mark.skipif(not os.environ.get("STRESSLENS_DATA"), reason="the real MNIST is not there")
def test_the_facts_of_mnist_are_those_of_its_files(tmp_path: Path) -> None:
    data = registry.resolve("datasets", {"torchvision": {"name": "MNIST", "validation": 0}})()
    assert {name: len(split) for name, split in data.splits.items()} == dict(FACTS["MNIST"].images)
    assert len(data.classes) == FACTS["MNIST"].classes
