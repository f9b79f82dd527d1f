"""Which images are looked into, against slow redoing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stresslens.core.data import Split
from stresslens.core.errors import ConfigError
from stresslens.evaluation.scores import Predictions
from stresslens.explanation.image_selection import selected_images


def made(seed: int, n: int = 40, classes: int = 4) -> tuple[Split, Predictions]:
    draws = np.random.default_rng(seed)
    labels = draws.integers(classes, size=n)
    files = np.array([f"some/where/{k}.png" for k in range(n)])
    split = Split(torch.zeros(n, 1, 2, 2), torch.from_numpy(labels), 1.0, {"file": files})
    return split, Predictions(draws.normal(size=(n, classes)), labels, np.arange(n))


@given(st.integers(0, 10_000), st.integers(1, 50))
def test_each_way(seed: int, count: int) -> None:
    split, predictions = made(seed)
    p, labels = predictions.probabilities, predictions.labels
    guess, sure = p.argmax(1), p.max(1)
    for way, among, sign in (
        ("most_confident_correct", guess == labels, -1),
        ("most_confident_wrong", guess != labels, -1),
        ("least_confident", sure > 0, 1),
    ):
        found = selected_images(split, way, count, predictions)
        expected = sorted(np.flatnonzero(among), key=lambda k: sign * sure[k])[:count]
        assert found.tolist() == expected
    first = selected_images(split, "one_per_class", count, predictions)
    assert len(first) == min(count, 40)
    turns = [list(labels[:place]).count(labels[place]) for place in first]
    assert turns == sorted(turns)
    assert labels[first[: len(np.unique(labels))]].tolist() == sorted(set(labels.tolist()))[: len(first)]
    drawn = selected_images(split, "random", count, predictions, seed)
    assert len(set(drawn.tolist())) == len(drawn) == min(count, 40)
    assert drawn.tolist() == selected_images(split, "random", count, predictions, seed).tolist()
    pairs = [(labels[k], guess[k]) for k in selected_images(split, "confused_pairs", count, predictions)]
    assert len(set(pairs)) == len(pairs)
    assert all(a != b for a, b in pairs)
    often = [int(((labels == a) & (guess == b)).sum()) for a, b in pairs]
    assert often == sorted(often, reverse=True)


def test_by_number_and_by_name() -> None:
    split, predictions = made(0)
    assert selected_images(split, [7, 3], 1, predictions).tolist() == [7, 3]
    assert selected_images(split, ["where/12.png", "some/where/2.png"], 9, predictions).tolist() == [12, 2]
    assert selected_images(split, ["2.png"], 9, predictions).tolist() == [2]
    for asked, message in (
        ([40], "there is no image 40; the split's are 0 to 39"),
        (["99.png"], "explain.choose: '99.png': "),
    ):
        with pytest.raises(ConfigError, match=message):
            selected_images(split, asked, 1, predictions)  # type: ignore[arg-type]
    bare = Split(split.images, split.labels, 1.0)
    with pytest.raises(ConfigError, match="these images have no file names"):
        selected_images(bare, ["2.png"], 1, predictions)
    twice = Split(split.images, split.labels, 1.0, {"file": np.array(["a/x.png"] * 40)})
    with pytest.raises(ConfigError, match="40 images end in that name"):
        selected_images(twice, ["x.png"], 1, predictions)
