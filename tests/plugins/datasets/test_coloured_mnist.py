"""Digits in colours: which pairs are seen, which colours are drawn, and that a subset changes no image."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stresslens.config import registry
from stresslens.core.data import Data
from stresslens.core.errors import ConfigError
from stresslens.plugins.datasets.coloured_mnist import COLOURS, DIGITS, JITTER, PAIRS, _pairs


def load(**options: Any) -> Data:
    data: Data = registry.resolve("datasets", {"coloured_mnist": {"source": "digits", **options}})()
    return data


def test_held_out_pairs_are_in_the_test_images_alone() -> None:
    data = load()
    assert data.classes == PAIRS
    assert PAIRS[23] == "yellow three"
    assert data.validation is not None
    assert data.test is not None
    known = {k * 11 for k in range(10)}  # red zero, orange one, …
    for split in (data.train, data.validation):
        assert not known & set(split.labels.tolist())
        assert set(split.columns["pair"]) == {"seen"}
    held_out = data.test.columns["pair"] == "held out"
    assert np.array_equal(held_out, np.isin(data.test.labels.numpy(), list(known)))
    assert 0.05 < held_out.mean() < 0.2
    assert set(data.slices) <= set(data.test.columns)


@settings(deadline=None)
@given(st.integers(0, 90))
def test_every_colour_and_every_digit_is_seen(held_out: int) -> None:
    seen = _pairs(held_out)
    assert int((~seen).sum()) == held_out
    assert bool(seen.any(0).all() and seen.any(1).all())


def test_an_image_has_the_colour_of_its_name() -> None:
    """Each pixel is the grey one times the colour, which lies within the jitter of the named one."""
    data = load(validation=0)
    brightest = data.train.images.flatten(2).amax(2).double()  # (N, 3), where the digit is whitest
    named = torch.tensor(list(COLOURS.values()))[data.train.labels // 10]
    white = data.train.images.flatten(2).amax(2).amax(1) >= 200
    assert float((brightest - named).abs()[white].max()) <= JITTER + 255 * 0.15
    for k, (pair, colour, digit) in enumerate(
        zip(*(data.train.columns[c] for c in ("pair", "colour", "digit")))
    ):
        assert pair == "seen"
        assert data.classes[int(data.train.labels[k])] == f"{colour} {digit}"
        assert digit in DIGITS


def test_a_subset_and_another_split_change_no_image() -> None:
    whole, some = load(), load(subset=300)
    every = {image.numpy().tobytes() for image in whole.train.images}
    assert all(image.numpy().tobytes() in every for image in some.train.images)
    assert torch.equal(load(validation=200).test.images, whole.test.images)  # type: ignore[union-attr]
    assert not torch.equal(load(seed=1).test.images, whole.test.images)  # type: ignore[union-attr]


@pytest.mark.parametrize("held_out", [-1, 91, 2.5])
def test_how_many_pairs_may_be_held_out(held_out: float) -> None:
    with pytest.raises(ConfigError, match="held_out"):
        load(held_out=held_out)
