"""The confident joint by hand, what holds for any labels and probabilities, and cleanlab beside it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from stresslens.metrics.confident_learning import (
    calibrated_joint,
    class_thresholds,
    confident_classes,
    confident_joint,
    normalized_margin,
    probably_wrong,
    self_confidence,
    whole_numbers,
)

QUICK = settings(max_examples=60, deadline=None)

LABELS = np.array([0, 0, 0, 0, 1, 1])
PROBABILITIES = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.2, 0.8], [0.1, 0.9], [0.4, 0.6]])
"""The means of the own probabilities are 0.65 and 0.75; the fourth image has the wrong label."""


def drawn(seed: int, n: int = 60, classes: int = 4) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    random = np.random.default_rng(seed)
    return random.integers(classes, size=n), random.dirichlet(np.full(classes, 0.5), n)


def test_by_hand() -> None:
    assert class_thresholds(LABELS, PROBABILITIES) == pytest.approx([0.65, 0.75])
    assert confident_classes(LABELS, PROBABILITIES).tolist() == [0, 0, 0, 1, 1, -1]
    assert confident_joint(LABELS, PROBABILITIES).tolist() == [[3, 1], [0, 1]]
    assert calibrated_joint(LABELS, PROBABILITIES).tolist() == [[3, 1], [0, 2]]
    assert self_confidence(LABELS, PROBABILITIES).tolist() == [0.9, 0.8, 0.7, 0.2, 0.9, 0.6]
    assert normalized_margin(LABELS, PROBABILITIES) == pytest.approx([0.8, 0.6, 0.4, -0.6, 0.8, 0.2])
    assert probably_wrong(LABELS, PROBABILITIES).tolist() == [False, False, False, True, False, False]


def test_of_two_classes_that_reach_their_thresholds_the_more_probable_one_counts() -> None:
    """Class 2 has the threshold 0.2, so that the first image reaches those of 1 and of 2."""
    labels = np.array([0, 1, 2])
    probabilities = np.array([[0.1, 0.6, 0.3], [0.3, 0.5, 0.2], [0.5, 0.3, 0.2]])
    assert class_thresholds(labels, probabilities) == pytest.approx([0.1, 0.5, 0.2])
    assert confident_classes(labels, probabilities).tolist() == [1, 1, 0]


def test_a_class_without_images_is_never_confident() -> None:
    labels, probabilities = np.array([0, 0, 1]), np.array([[0.1, 0.0, 0.9], [1, 0, 0], [0, 1.0, 0]])
    assert class_thresholds(labels, probabilities)[2] == np.inf
    assert not (confident_classes(labels, probabilities) == 2).any()
    assert calibrated_joint(labels, probabilities)[2].sum() == 0


def test_a_row_without_a_confident_image_counts_as_right() -> None:
    """Both images of class 1 look half like class 0, and the threshold of 0 is out of reach for them; one
    of them is below the threshold of its own class."""
    labels = np.array([0, 1])
    probabilities = np.array([[1.0, 0.0], [0.5, 0.5]])
    assert calibrated_joint(labels, probabilities).tolist() == [[1, 0], [0, 1]]
    assert not probably_wrong(labels, probabilities).any()


@given(seed=st.integers(0, 2**32 - 1))
@QUICK
def test_each_row_of_the_calibrated_joint_has_the_images_of_its_label(seed: int) -> None:
    labels, probabilities = drawn(seed)
    joint = calibrated_joint(labels, probabilities)
    assert (joint >= 0).all()
    np.testing.assert_allclose(joint.sum(1), np.bincount(labels, minlength=4))
    assert (
        confident_joint(labels, probabilities).sum() == (confident_classes(labels, probabilities) >= 0).sum()
    )


def test_a_row_is_rounded_by_hand() -> None:
    """Rounded down, the sum is 8 of 10. One is added to the largest remainder, and one where the next
    image has the largest margin: the second of class 2."""
    row = np.array([5.8, 1.4, 1.4, 1.4])
    margins = np.zeros((10, 4))
    margins[:, 1:] = -1.0
    margins[:2, 1:] = [[0.9, 0.5, 0.7], [0.1, 0.4, 0.3]]
    assert whole_numbers(row, margins).tolist() == [6, 1, 2, 1]


@given(seed=st.integers(0, 2**32 - 1))
@QUICK
def test_rounding_keeps_the_sum_of_a_row_and_moves_each_number_by_less_than_one(seed: int) -> None:
    """So the number of wrong labels in a row is off by less than one, too."""
    labels, probabilities = drawn(seed)
    for i, row in enumerate(calibrated_joint(labels, probabilities)):
        of_label = probabilities[labels == i]
        whole = whole_numbers(row, -np.sort(of_label[:, [i]] - of_label, axis=0))
        assert whole.sum() == len(of_label)
        assert (np.abs(whole - row) < 1).all()


def test_flips_to_many_classes_are_found_where_some_images_are_not_confident() -> None:
    """Label 0 has seven flips, of which five are confident, one for each other class, and 28 right images,
    20 of them confident: the joint estimates 35 / 25 = 1.4 for each class. Each rounded by itself gives
    five, and the unsure flips are missed."""
    sure = np.eye(6)[[*range(1, 6), *[0] * 20]] * 0.94 + 0.01
    unsure = np.eye(6)[[1, 2, *[0] * 8]] * 0.4 + 0.1
    others = np.eye(6)[np.repeat(np.arange(1, 6), 10)] * 0.7 + 0.05
    probabilities = np.concatenate([sure, unsure, others])
    labels = np.concatenate([np.zeros(35, int), np.repeat(np.arange(1, 6), 10)])
    assert calibrated_joint(labels, probabilities)[0, 1:] == pytest.approx([1.4] * 5)
    assert np.flatnonzero(probably_wrong(labels, probabilities)).tolist() == [0, 1, 2, 3, 4, 25, 26]


@given(seed=st.integers(0, 2**32 - 1))
@QUICK
def test_neither_the_order_of_images_nor_that_of_classes_matters(seed: int) -> None:
    labels, probabilities = drawn(seed)
    random = np.random.default_rng(seed)
    rows, classes = random.permutation(len(labels)), random.permutation(4)
    place = np.argsort(classes)
    found = probably_wrong(labels, probabilities)
    assert (probably_wrong(labels[rows], probabilities[rows]) == found[rows]).all()
    assert (probably_wrong(place[labels], probabilities[:, classes]) == found).all()


@given(seed=st.integers(0, 2**32 - 1))
@QUICK
def test_an_image_whose_label_is_its_most_probable_class_is_never_found(seed: int) -> None:
    labels, probabilities = drawn(seed)
    found = probably_wrong(labels, probabilities)
    assert not found[probabilities.argmax(1) == labels].any()
    assert (normalized_margin(labels, probabilities)[found] < 0).all()


@given(seed=st.integers(0, 2**32 - 1), wrong=st.integers(0, 12))
@QUICK
def test_with_sure_models_exactly_the_flips_are_found(seed: int, wrong: int) -> None:
    random = np.random.default_rng(seed)
    truth = np.repeat(np.arange(5), 20)
    labels, rows = truth.copy(), random.choice(100, wrong, replace=False)
    labels[rows] = (truth[rows] + random.integers(1, 5, wrong)) % 5
    found = probably_wrong(labels, np.full((100, 5), 0.01) + 0.95 * np.eye(5)[truth])
    assert set(np.flatnonzero(found)) == set(rows)


def test_the_estimated_noise_is_that_of_the_data() -> None:
    """3,000 images of which 10 % of each class have the label of the next, and models that are unsure at
    random: each of the three pairs has 100 images, and no other."""
    random = np.random.default_rng(0)
    truth = np.repeat(np.arange(3), 1000)
    labels = np.where(np.arange(3000) % 10 == 0, (truth + 1) % 3, truth)
    logits = 4 * np.eye(3)[truth] + random.normal(size=(3000, 3))
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    joint = calibrated_joint(labels, probabilities)
    assert [joint[1, 0], joint[2, 1], joint[0, 2]] == pytest.approx([100] * 3, abs=10)
    assert [joint[0, 1], joint[1, 2], joint[2, 0]] == pytest.approx([0] * 3, abs=10)


@pytest.mark.parametrize("seed", range(5))
def test_as_cleanlab(seed: int) -> None:
    """The same counts and ranks; of the images found nearly all: where remainders are equal
    cleanlab raises another number."""
    count = pytest.importorskip("cleanlab.count")
    rank, filters = pytest.importorskip("cleanlab.rank"), pytest.importorskip("cleanlab.filter")
    labels, probabilities = drawn(seed, 600)
    probabilities = 0.5 * probabilities + 0.5 * np.eye(4)[labels]
    np.testing.assert_array_equal(
        confident_joint(labels, probabilities),
        count.compute_confident_joint(labels, probabilities, calibrate=False),
    )
    np.testing.assert_allclose(
        self_confidence(labels, probabilities), rank.get_self_confidence_for_each_label(labels, probabilities)
    )
    np.testing.assert_allclose(
        (normalized_margin(labels, probabilities) + 1) / 2,
        rank.get_normalized_margin_for_each_label(labels, probabilities),
    )
    random = np.random.default_rng(seed)
    flipped = np.where(random.random(600) < 0.1, random.integers(4, size=600), labels)
    theirs = filters.find_label_issues(flipped, probabilities, filter_by="prune_by_noise_rate", n_jobs=1)
    ours = probably_wrong(flipped, probabilities)
    assert theirs.sum() > 20
    assert (ours & theirs).sum() >= 0.97 * max(ours.sum(), theirs.sum())
