"""Fast figures against scikit-learn's, on random cases with absent classes, and at the edges."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn import metrics as sklearn

from stresslens.metrics import classification

QUICK = settings(max_examples=40, deadline=None)
Case = tuple[NDArray[np.float64], NDArray[np.int64]]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Scores (N, K) of which no two of an image are equal, and labels (N,), often with classes that
    are absent."""
    n, k = draw(st.integers(1, 60)), draw(st.integers(2, 7))
    present = draw(st.lists(st.integers(0, k - 1), min_size=1, max_size=k))
    generator = np.random.default_rng(draw(st.integers(0, 10_000)))
    scores = generator.normal(size=(n, k)) * 3
    labels = generator.choice(present, size=n).astype(np.int64)
    if draw(st.booleans()):  # a model that has learned something
        scores[np.arange(n), labels] += 3
    return scores, labels


@QUICK
@given(cases())
def test_accuracy(case: Case) -> None:
    scores, labels = case
    found = classification.accuracy(scores, labels)
    assert found.value == pytest.approx(sklearn.accuracy_score(labels, scores.argmax(1)))
    assert found.n == len(labels)
    assert 0 <= found.low <= found.value <= found.high <= 1


@QUICK
@given(cases(), st.integers(1, 7))
def test_top_k(case: Case, k: int) -> None:
    scores, labels = case
    k = min(k, scores.shape[1])
    order = np.argsort(-scores, axis=1)[:, :k]
    slow = np.mean([label in best for label, best in zip(labels, order, strict=True)])
    assert classification.top_k(scores, labels, k).value == pytest.approx(slow)
    if 2 < scores.shape[1] != k:
        expected = sklearn.top_k_accuracy_score(labels, scores, k=k, labels=np.arange(scores.shape[1]))
        assert classification.top_k(scores, labels, k).value == pytest.approx(expected)
    assert classification.top_k(scores, labels, 1).value == classification.accuracy(scores, labels).value
    assert classification.top_k(scores, labels, scores.shape[1]).value == 1


@pytest.mark.parametrize(("k", "value"), [(1, 1 / 3), (2, 2 / 3), (3, 1.0)])
def test_ties_go_to_the_first_class_for_top_k_as_for_the_prediction(k: int, value: float) -> None:
    scores = np.zeros((3, 3))
    assert classification.predicted(scores).tolist() == [0, 0, 0]
    assert classification.top_k(scores, np.arange(3), k).value == pytest.approx(value)


@QUICK
@given(cases())
def test_confusion_matrix(case: Case) -> None:
    scores, labels = case
    expected = sklearn.confusion_matrix(labels, scores.argmax(1), labels=np.arange(scores.shape[1]))
    assert np.array_equal(classification.confusion_matrix(scores, labels), expected)


@QUICK
@given(cases())
def test_precision_recall_f1_and_support(case: Case) -> None:
    scores, labels = case
    confusion = classification.confusion_matrix(scores, labels)
    precision, recall, f1, support = sklearn.precision_recall_fscore_support(
        labels, scores.argmax(1), labels=np.arange(scores.shape[1]), zero_division=np.nan
    )
    found = classification.per_class(confusion)
    assert [e.value for e in found["precision"]] == pytest.approx(precision.tolist(), nan_ok=True)
    assert [e.value for e in found["recall"]] == pytest.approx(recall.tolist(), nan_ok=True)
    assert [e.n for e in found["recall"]] == confusion.sum(1).tolist() == support.tolist()
    assert [e.n for e in found["precision"]] == confusion.sum(0).tolist()
    either = confusion.sum(0) + confusion.sum(1) - np.diagonal(confusion)
    assert [e.value for e in found["f1"]] == pytest.approx(
        np.where(either > 0, np.nan_to_num(f1), np.nan).tolist(), nan_ok=True
    )
    assert [e.n for e in found["f1"]] == either.tolist()
    assert all(0 <= e.low <= e.value <= e.high <= 1 for e in found["f1"] if e.n)


@QUICK
@given(cases())
def test_balanced_accuracy(case: Case) -> None:
    scores, labels = case
    found = classification.balanced_accuracy(classification.confusion_matrix(scores, labels))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn's, about classes that are predicted but absent
        expected = sklearn.balanced_accuracy_score(labels, scores.argmax(1))
    assert found.value == pytest.approx(expected)
    assert 0 <= found.low <= found.value <= found.high <= 1


@QUICK
@given(cases())
def test_cross_entropy(case: Case) -> None:
    scores, labels = case
    probabilities = np.exp(classification.log_softmax(scores))
    assert probabilities.sum(1) == pytest.approx(np.ones(len(labels)))
    expected = sklearn.log_loss(labels, probabilities, labels=np.arange(scores.shape[1]))
    found = classification.cross_entropy(scores, labels)
    assert found.value == pytest.approx(expected, rel=1e-6)
    assert found.low <= found.value + 1e-12
    assert found.high >= found.value - 1e-12


def test_cross_entropy_of_large_logits_does_not_overflow() -> None:
    scores = np.array([[1e4, 0.0], [0.0, 1e4]])
    assert classification.cross_entropy(scores, np.array([0, 1])).value == 0
    assert classification.cross_entropy(scores, np.array([1, 0])).value == 1e4


def test_all_right_and_all_wrong() -> None:
    labels = np.arange(30) % 3
    right, wrong = np.eye(3)[labels], np.eye(3)[(labels + 1) % 3]
    for scores, value in ((right, 1.0), (wrong, 0.0)):
        confusion = classification.confusion_matrix(scores, labels)
        assert classification.accuracy(scores, labels).value == value
        assert classification.balanced_accuracy(confusion).value == value
        assert [e.value for e in classification.per_class(confusion)["f1"]] == [value] * 3
    assert classification.accuracy(right, labels).high == 1
    assert 0.8 < classification.accuracy(right, labels).low < 1  # 30 of 30 does not mean certainty
    assert 0 < classification.accuracy(wrong, labels).high < 0.2


def test_f1s_interval_covers_about_as_often_as_it_says() -> None:
    shares = np.array([[0.30, 0.04, 0.01], [0.05, 0.25, 0.05], [0.00, 0.02, 0.28]])
    truth = [e.value for e in classification.f1_scores((shares * 10_000).astype(np.int64))]
    drawn = np.random.default_rng(0).multinomial(120, shares.ravel(), size=1000).reshape(-1, 3, 3)
    covered = [
        [e.low <= t <= e.high for e, t in zip(classification.f1_scores(matrix), truth, strict=True)]
        for matrix in drawn
    ]
    assert np.abs(np.mean(covered, axis=0) - 0.95).max() < 0.025


def test_one_image() -> None:
    scores, labels = np.array([[2.0, 1.0]]), np.array([0])
    confusion = classification.confusion_matrix(scores, labels)
    assert classification.accuracy(scores, labels).n == 1
    assert classification.balanced_accuracy(confusion).value == 1
    assert classification.cross_entropy(scores, labels).value == pytest.approx(math.log1p(math.exp(-1)))
    assert math.isnan(classification.per_class(confusion)["recall"][1].value)
    assert math.isnan(classification.per_class(confusion)["f1"][1].value)


def test_a_model_is_not_punished_for_classes_without_images() -> None:
    confusion = np.array([[8, 2, 0], [0, 0, 0], [0, 0, 10]])
    assert classification.balanced_accuracy(confusion).value == pytest.approx(0.9)


def test_the_majority_baseline_answers_what_was_frequent_in_training() -> None:
    found = classification.majority_baseline(np.array([2, 2, 1, 0]), np.array([2, 1, 1, 1, 0]))
    assert (found.value, found.n) == (0.2, 5)


def test_estimates_do_not_depend_on_the_order_of_the_images() -> None:
    generator = np.random.default_rng(3)
    scores, labels = generator.normal(size=(50, 4)), generator.integers(0, 4, 50)
    order = generator.permutation(50)
    first, second = (
        classification.confusion_matrix(s, y) for s, y in ((scores, labels), (scores[order], labels[order]))
    )
    assert classification.balanced_accuracy(first) == classification.balanced_accuracy(second)


@QUICK
@given(cases())
def test_averages_over_classes(case: Case) -> None:
    """Classes without images are left out; one that is never predicted counts as 0."""
    scores, labels = case
    found = classification.averages(scores, labels)
    for kind in ("macro", "weighted"):
        expected = sklearn.precision_recall_fscore_support(
            labels, scores.argmax(1), labels=np.unique(labels), average=kind, zero_division=0
        )
        for name, value in zip(("precision", "recall", "f1"), expected):
            estimate = found[kind][name]
            assert estimate.value == pytest.approx(value)
            assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1
            assert estimate.low < estimate.high


def test_averages_of_images_without_an_answer() -> None:
    """They count among their class's images, and for no class's precision."""
    scores = np.array([[1.0, 0.0], [1.0, 0.0], [np.nan, 0.0], [0.0, 1.0]])
    found = classification.averages(scores, np.array([0, 0, 0, 1]))
    assert found["macro"]["precision"].value == 1
    assert found["macro"]["precision"].low < 0.9
    assert found["macro"]["f1"].value == pytest.approx((0.8 + 1) / 2)
    assert found["weighted"]["f1"].value == pytest.approx((3 * 0.8 + 1) / 4)


@pytest.mark.parametrize("right", [0, 1], ids=["none right", "all right"])
def test_averages_at_the_edges_leave_room(right: int) -> None:
    labels = np.arange(40) % 4
    found = classification.averages(np.eye(4)[(labels + 1 - right) % 4], labels)
    for estimates in found.values():
        for estimate in estimates.values():
            assert estimate.value == right
            assert 0.02 < estimate.high - estimate.low < 0.5


@pytest.mark.breadth(1)
@pytest.mark.parametrize(("accuracy", "rare"), [(0.9, False), (0.97, False), (0.8, True)], ids=str)
def test_intervals_of_averages_cover(accuracy: float, rare: bool) -> None:
    random = np.random.default_rng(0)
    share = np.array([0.6, 0.1, 0.1, 0.1, 0.1]) if rare else np.full(5, 0.2)
    cells = np.diag(accuracy * share)
    for k in range(5):
        cells[k, np.arange(5) != k] = (1 - accuracy) * share[k] * random.dirichlet(np.ones(4))
    right, named = np.diag(cells), cells.sum(0)
    each = {"precision": right / named, "f1": 2 * right / (share + named)}
    covered = []
    for _ in range(150):
        truth, answer = np.divmod(random.choice(25, 200, p=cells.ravel()), 5)
        found = classification.averages(np.eye(5)[answer], truth)
        for kind, weights in (("macro", np.full(5, 0.2)), ("weighted", share)):
            for name, values in each.items():
                estimate = found[kind][name]
                covered.append(estimate.low <= float(weights @ values) <= estimate.high)
    assert np.mean(covered) > 0.92
