"""Areas against scikit-learn's, their variance against the bootstrap, and whether their intervals cover."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import logit
from sklearn import metrics as sklearn

from stresslens.core.types import Estimate
from stresslens.metrics import ranking

QUICK = settings(max_examples=40, deadline=None)
Case = tuple[NDArray[np.float64], NDArray[np.int64]]
Figure = Callable[[NDArray[np.float64], NDArray[np.int64]], ranking.Ranking]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Scores (N, K), many of them tied, and labels (N,), often with classes that are absent."""
    n, k = draw(st.integers(1, 60)), draw(st.integers(2, 6))
    present = draw(st.lists(st.integers(0, k - 1), min_size=1, max_size=k))
    generator = np.random.default_rng(draw(st.integers(0, 10_000)))
    labels = generator.choice(present, size=n).astype(np.int64)
    scores = generator.normal(size=(n, k))
    scores[np.arange(n), labels] += draw(st.sampled_from([0.0, 1.0, 9.0]))
    return np.round(scores, draw(st.sampled_from([0, 1, 9]))), labels


@QUICK
@given(cases())
@pytest.mark.parametrize(
    ("figure", "expected"),
    [(ranking.auroc, sklearn.roc_auc_score), (ranking.auprc, sklearn.average_precision_score)],
    ids=["auroc", "auprc"],
)
def test_each_class_and_the_mean_are_scikit_learns(
    figure: Figure, expected: Callable[..., float], case: Case
) -> None:
    scores, labels = case
    found = figure(scores, labels)
    known = []
    for k, estimate in enumerate(found.each):
        own = labels == k
        if own.all() or not own.any():
            assert math.isnan(estimate.value)
            assert estimate.n == 0
        else:
            known.append(expected(own, scores[:, k]))
            assert estimate.value == pytest.approx(known[-1], abs=1e-12)
            assert estimate.n == len(labels)
            assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1
    if known:
        assert found.mean.value == pytest.approx(np.mean(known))
        assert 0 <= found.mean.low <= found.mean.value <= found.mean.high <= 1
    else:
        assert math.isnan(found.mean.value)


@QUICK
@given(cases(), st.integers(0, 100))
def test_nothing_depends_on_the_order_of_the_images_or_the_scale_of_the_scores(case: Case, seed: int) -> None:
    scores, labels = case
    order = np.random.default_rng(seed).permutation(len(labels))
    for figure in (ranking.auroc, ranking.auprc):
        first, second = figure(scores, labels).mean, figure(np.exp(scores[order] / 4), labels[order]).mean
        assert (first.value, first.low, first.high) == pytest.approx(
            (second.value, second.low, second.high), nan_ok=True, abs=1e-9
        )


def spread_of(estimate: Estimate) -> float:
    """The standard error that its interval on the logit scale was made of, by the upper end."""
    half = logit(estimate.high) - logit(estimate.value)
    return float(half / 1.959964 * estimate.value * (1 - estimate.value))


@pytest.mark.breadth(1)
@pytest.mark.parametrize("figure", [ranking.auroc, ranking.auprc], ids=["auroc", "auprc"])
def test_variances_are_the_bootstraps(figure: Figure) -> None:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, 600)
    scores = np.round(generator.normal(size=(600, 3)) + 1.2 * np.eye(3)[labels], 1)
    found = figure(scores, labels)
    drawn = []
    for _ in range(400):
        rows = generator.integers(0, 600, 600)
        again = figure(scores[rows], labels[rows])
        drawn.append([again.mean.value, *(e.value for e in again.each)])
    slow = np.std(drawn, axis=0)
    assert [spread_of(e) for e in (found.mean, *found.each)] == pytest.approx(slow.tolist(), rel=0.12)


def test_areas_variance_is_delongs() -> None:
    """The formula of the paper, by its double loop over positives and negatives."""
    generator = np.random.default_rng(0)
    own, scores = np.arange(60) < 20, np.round(generator.normal(size=60), 1)
    scores[own] += 1
    psi = np.array([[(a > b) + 0.5 * (a == b) for b in scores[~own]] for a in scores[own]])
    expected = psi.mean(1).var(ddof=1) / 20 + psi.mean(0).var(ddof=1) / 40
    found = ranking.auroc(np.column_stack([-scores, scores]), own.astype(np.int64)).each[1]
    assert spread_of(found) ** 2 == pytest.approx(expected, rel=1e-5)


@pytest.mark.slow
def test_average_precision_of_chance_is_biased_and_its_interval_knows() -> None:
    generator = np.random.default_rng(4)
    found = [
        ranking.auprc(generator.normal(size=(200, 10)), generator.integers(0, 10, 200)).mean
        for _ in range(200)
    ]
    assert np.mean([e.value for e in found]) > 0.115  # the truth is 0.1
    assert np.mean([e.low <= 0.1 <= e.high for e in found]) > 0.95


def test_two_classes_mirror_each_other() -> None:
    generator = np.random.default_rng(1)
    labels, score = generator.integers(0, 2, 80), generator.random(80)
    first, second = ranking.auroc(np.column_stack([1 - score, score]), labels).each
    assert (first.value, first.low, first.high) == pytest.approx((second.value, second.low, second.high))


def test_separation_is_no_certainty() -> None:
    labels = np.arange(60) % 3
    for figure in (ranking.auroc, ranking.auprc):
        found = figure(np.eye(3)[labels], labels)
        assert found.mean.value == 1
        assert 0.7 < found.mean.low < 1
        assert all(e.value == e.high == 1 and 0.7 < e.low < 1 for e in found.each)
    wrong = ranking.auroc(1 - np.eye(3)[labels], labels).mean
    assert (wrong.value, wrong.low, wrong.high > 0.05) == (0, 0, True)


def test_scores_that_say_nothing() -> None:
    labels = np.arange(60) % 3
    assert ranking.auroc(np.ones((60, 3)), labels).mean.value == 0.5
    assert ranking.auprc(np.ones((60, 3)), labels).mean.value == pytest.approx(1 / 3)


@pytest.mark.parametrize("labels", [[0], [1], [1, 1, 1]])
def test_one_class_alone_cannot_be_ranked(labels: list[int]) -> None:
    found = ranking.auroc(np.ones((len(labels), 2)), np.array(labels))
    assert [math.isnan(e.value) for e in (*found.each, found.mean)] == [True] * 3
    assert found.mean.n == 0


@pytest.mark.slow
@pytest.mark.parametrize("separation", [0.5, 1.5, 2.5])
@pytest.mark.parametrize("figure", [ranking.auroc, ranking.auprc], ids=["auroc", "auprc"])
def test_intervals_cover_about_as_often_as_they_say(figure: Figure, separation: float) -> None:
    generator = np.random.default_rng(3)

    def draw(n: int) -> Case:
        labels = generator.integers(0, 4, n)
        return generator.normal(size=(n, 4)) + separation * np.eye(4)[labels], labels

    truth = figure(*draw(400_000)).mean.value
    found = [figure(*draw(200)) for _ in range(500)]
    assert abs(np.mean([f.mean.low <= truth <= f.mean.high for f in found]) - 0.95) < 0.035
    of_classes = np.mean([[e.low <= truth <= e.high for e in f.each] for f in found])
    assert 0.91 < of_classes < 0.99
