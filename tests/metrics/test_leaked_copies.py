"""Accuracy without copies, against figures worked out by hand and against simulated test sets."""

from __future__ import annotations

import numpy as np
import pytest

from stresslens.metrics.leaked_copies import GAIN, ON, WITHOUT, scores_without_copies, without_copies_in_words


def test_figures_by_hand() -> None:
    right = np.array([True, True, False, True, True, False, False, True, True, True])
    found = scores_without_copies(right, [0, 1, 9])
    assert (found[ON].value, found[ON].n) == (1, 3)
    assert (found[WITHOUT].value, found[WITHOUT].n) == (pytest.approx(4 / 7), 7)
    assert found[GAIN].value == pytest.approx(0.7 - 4 / 7)  # of all images, minus without the copies
    assert found[GAIN].n == 10
    text = without_copies_in_words(found, "test")
    assert text.startswith("3 test images have a copy in an earlier split: accuracy without them 57.1 % (")
    assert "+12.86 (" in text


def test_nothing_is_said_without_copies_or_without_other_images() -> None:
    right = np.ones(4, bool)
    assert scores_without_copies(right, []) == scores_without_copies(right, range(4)) == {}
    assert without_copies_in_words({}, "test") == ""


@pytest.mark.parametrize("copies", [10, 100])
def test_the_interval_covers_the_gain(copies: int) -> None:
    """2,000 test sets of 1,000 images, on whose copies the model is right more often (0.99 to 0.8)."""
    random, n, truth = np.random.default_rng(0), 1000, copies / 1000 * (0.99 - 0.8)
    chance = np.where(np.arange(n) < copies, 0.99, 0.8)
    inside = 0
    for right in random.random((2000, n)) < chance:
        gain = scores_without_copies(right, range(copies))[GAIN]
        inside += gain.low <= truth <= gain.high
    assert inside >= 0.94 * 2000
