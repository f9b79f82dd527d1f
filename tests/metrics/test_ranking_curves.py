"""ROC and precision–recall curves against scikit-learn, and their areas against the scores."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import precision_recall_curve as sklearn_precision_recall
from sklearn.metrics import roc_curve as sklearn_roc

from stresslens.metrics.ranking import auprc, auroc
from stresslens.metrics.ranking_curves import mean_curve, precision_recall_curve, roc_curve


def ranked(seed: int, n: int, values: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores of `values` different values, so that many are equal, and at least one image of each side."""
    random = np.random.default_rng(seed)
    positive = random.random(n) < 0.4
    positive[:2] = True, False
    return random.integers(0, values, n) / values + 0.2 * positive, positive


SAMPLES = given(st.integers(0, 2**32 - 1), st.integers(2, 60), st.integers(1, 40))


@SAMPLES
@settings(deadline=None, max_examples=60)
def test_the_areas_are_the_scores(seed: int, n: int, values: int) -> None:
    scores, positive = ranked(seed, n, values)
    both = np.stack([-scores, scores], 1)
    labels = positive.astype(np.int64)
    assert roc_curve(scores, positive).area == pytest.approx(auroc(both, labels).each[1].value)
    assert precision_recall_curve(scores, positive).area == pytest.approx(auprc(both, labels).each[1].value)


@SAMPLES
@settings(deadline=None, max_examples=60)
def test_the_points_are_those_of_scikit_learn(seed: int, n: int, values: int) -> None:
    scores, positive = ranked(seed, n, values)
    x, y, _ = sklearn_roc(positive, scores, drop_intermediate=False)
    ours = roc_curve(scores, positive)
    assert np.allclose(ours.x, x)
    assert np.allclose(ours.y, y)
    precision, recall, _ = sklearn_precision_recall(positive, scores)
    ours = precision_recall_curve(scores, positive)
    assert np.allclose(ours.x[1::2], recall[-2::-1])  # scikit-learn adds the point (0, 1) at the end
    assert np.allclose(ours.y[1::2], precision[-2::-1])


def test_curves_by_hand() -> None:
    scores, positive = np.array([4.0, 3, 2, 1]), np.array([True, False, True, False])
    roc, steps = roc_curve(scores, positive), precision_recall_curve(scores, positive)
    assert roc.x.tolist() == [0, 0, 0.5, 0.5, 1]
    assert roc.y.tolist() == [0, 0.5, 0.5, 1, 1]
    assert steps.at(np.array([0.0, 0.5, 0.51, 1.0])).tolist() == [1, 1, 2 / 3, 2 / 3]
    assert roc.at(np.array([0.0, 0.25, 0.5, 1.0])).tolist() == [0.5, 0.5, 1, 1]


def test_equal_scores_give_the_diagonal_and_the_base_rate() -> None:
    scores, positive = np.zeros(5), np.array([True, False, False, False, False])
    assert roc_curve(scores, positive).x.tolist() == [0, 1]
    assert roc_curve(scores, positive).area == 0.5
    assert precision_recall_curve(scores, positive).y.tolist() == [0.2, 0.2]


@SAMPLES
@settings(deadline=None, max_examples=30)
def test_the_mean_lies_between_its_curves(seed: int, n: int, values: int) -> None:
    samples = [ranked(seed + k, n, values) for k in range(3)]
    for kind in (roc_curve, precision_recall_curve):
        curves = [kind(*sample) for sample in samples]
        mean = mean_curve(curves)
        heights = np.stack([curve.at(mean.x) for curve in curves])
        inner = slice(0 if mean.steps else 1, None)  # a ROC curve begins with a rise at x = 0
        assert (heights.min(0) <= mean.y + 1e-9)[inner].all()
        assert (mean.y <= heights.max(0) + 1e-9)[inner].all()
        assert np.allclose(mean_curve(curves[:1]).y[inner], curves[0].at(mean.x)[inner])
