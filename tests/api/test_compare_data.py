"""`sl.compare_data`: of parts of data, of a run, with a network of one's own, and what it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from finished_runs import Finished

import stresslens as sl


def test_two_parts_of_data() -> None:
    told: list[str] = []
    found = sl.compare_data(
        "digits", "digits", split_a="train", split_b="test", progress=lambda what, *_: told.append(what)
    )
    assert isinstance(found, sl.DataComparison)
    assert not found.differs
    assert found.auroc.low < 0.5 < found.detectable
    assert "A: digits (train)" in told
    assert repr(found).startswith("DataComparison(no difference found: AUROC 0.")
    assert found.sentence in found._repr_html_()
    rows = list(found._table().rows)
    assert [row["property"] for row in rows] == [each.name for each in found.properties]
    assert found.as_json()["detectable"] == found.detectable


def test_data_of_arrays() -> None:
    random = np.random.default_rng(0)
    images, labels = random.random((90, 6, 6), dtype=np.float32), np.arange(90) % 2
    a, b = (
        sl.Data.from_arrays(x, labels) for x in (images, 0.5 * random.random((90, 6, 6), dtype=np.float32))
    )
    found = sl.compare_data(a, b, n_images=80)
    assert found.differs
    assert found.a.sampled == 80
    assert {each.name for each in found.properties if each.real} >= {"brightness", "contrast"}


@pytest.mark.slow
def test_the_network_of_a_run(subjects: Finished) -> None:
    found = sl.compare_data(subjects.run, "digits", split_b="train", features="network")
    assert found.features == "network"
    assert found.a.name == "digits (validation)"
    assert sl.compare_data(subjects.own, "digits", split_b="test", n_images=60).a.sampled == 60


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"features": "hog"}, "features is 'hog'; expected 'pictures' or 'network'"),
        ({"features": "network"}, "features='network' needs a run as a"),
        ({"n_images": 5}, "n_images is 5; expected a whole number from 20 up"),
        ({"split_a": "rest"}, "split 'rest': expected train, validation, test or all"),
        ({"a": 5}, "data is an int"),
        ({"b": "no set"}, "no set"),
    ],
    ids=str,
)
def test_what_it_refuses(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(sl.StresslensError, match=said):
        sl.compare_data(**{"a": "digits", "b": "digits", "split_b": "test", **arguments})


def test_the_same_images_twice(subjects: Finished) -> None:
    data = subjects.run.data
    with pytest.raises(sl.ConfigError, match="a and b are the same images; choose parts"):
        sl.compare_data(data, data)
    with pytest.raises(sl.ConfigError, match="b is a run; give the run as a"):
        sl.compare_data(data, subjects.run)
