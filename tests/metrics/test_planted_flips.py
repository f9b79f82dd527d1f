"""Planted flips: how many, of which images, and to which label."""

from __future__ import annotations

import numpy as np
import pytest

from stresslens.metrics.planted_flips import FEWEST, FlipKind, planted_flips

TRUTH = np.repeat(np.arange(5), 200)
CONFUSED = np.full((1000, 5), 0.05) + 0.7 * np.eye(5)[TRUTH] + 0.05 * np.eye(5)[(TRUTH + 2) % 5]
"""Each class is taken for the one two further on, if not for itself."""


@pytest.mark.parametrize("kind", ["uniform", "confused pairs"])
@pytest.mark.parametrize("share", [0.01, 0.02, 0.1])
def test_a_share_of_the_labels_is_changed_and_no_other(kind: FlipKind, share: float) -> None:
    labels, rows = planted_flips(TRUTH, CONFUSED, share, kind)
    assert len(rows) == 1000 * share
    assert (np.diff(rows) > 0).all()
    assert set(np.flatnonzero(labels != TRUTH)) == set(rows)
    again, same = planted_flips(TRUTH, CONFUSED, share, kind)
    assert (again == labels).all()
    assert (same == rows).all()


def test_uniform_flips_give_every_other_class_and_confused_pairs_one() -> None:
    labels, rows = planted_flips(TRUTH, CONFUSED, 0.2, "uniform")
    steps = np.bincount((labels[rows] - TRUTH[rows]) % 5, minlength=5)
    assert steps[0] == 0
    assert steps[1:].min() > 25
    labels, rows = planted_flips(TRUTH, CONFUSED, 0.2, "confused pairs")
    assert ((labels[rows] - TRUTH[rows]) % 5 == 2).all()


def test_few_images_get_at_least_ten_flips_and_no_class_more_than_a_quarter() -> None:
    labels, rows = planted_flips(TRUTH[::10], CONFUSED[::10], 0.02, "uniform")
    assert len(rows) == FEWEST
    few = np.array([0] * 90 + [1] * 4 + [2] * 3)
    labels, rows = planted_flips(few, np.full((97, 3), 1 / 3), 0.9, "uniform")
    assert np.bincount(few[rows], minlength=3).tolist() == [22, 1, 0]
    labels, rows = planted_flips(np.array([0, 1, 1]), np.full((3, 2), 0.5), 0.5, "uniform")
    assert not len(rows)
    assert labels.tolist() == [0, 1, 1]


@pytest.mark.parametrize("kind", ["uniform", "confused pairs"])
def test_a_class_without_images_is_no_label_of_a_flip(kind: FlipKind) -> None:
    truth = np.repeat([0, 2], 100)
    probabilities = np.tile([0.4, 0.5, 0.1], (200, 1))
    labels, rows = planted_flips(truth, probabilities, 0.1, kind)
    assert len(rows) == 20
    assert set(labels) == {0, 2}
