"""Metrics by name against scikit-learn, and what they do with labels and scores that are at the edge."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import softmax
from sklearn import metrics as sklearn

from stresslens.core.errors import ConfigError
from stresslens.metrics import calibration, classification, ranking
from stresslens.metrics.measures import MEASURES, NAMES, measure_of
from stresslens.metrics.named_metrics import METRICS, metric_named

QUICK = settings(max_examples=40, deadline=None)
Case = tuple[NDArray[np.float64], NDArray[np.int64]]
COSTS = np.array([[0, 1, 2.0], [1, 0, 5], [10, 3, 0]])


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Logits (N, 3), often tied, and labels of at least two classes."""
    n, random = draw(st.integers(4, 80)), np.random.default_rng(draw(st.integers(0, 10_000)))
    labels = random.choice(draw(st.sampled_from([(0, 1, 2), (0, 2), (1, 2)])), size=n)
    labels[:2] = [labels.min(), 2 if labels.min() < 2 else 0]
    logits = random.normal(size=(n, 3))
    logits[np.arange(n), labels] += draw(st.sampled_from([0.0, 1.0, 9.0]))
    return np.round(logits, draw(st.sampled_from([0, 1, 9]))), labels.astype(np.int64)


def mean_of(name: str, logits: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    metric = metric_named(name, labels, ["a", "b", "c"], COSTS if name == "cost" else None)
    scores = softmax(logits, 1) if metric.needs == "order" else logits
    assert metric.estimate(scores, labels).value == pytest.approx(metric.values(scores, labels).mean())
    return float(metric.values(scores, labels).mean())


def _best_two(row: NDArray[np.float64]) -> list[int]:
    return sorted(range(3), key=lambda k: -row[k])[:2]


@QUICK
@given(cases())
def test_metrics_are_those_of_scikit_learn(case: Case) -> None:
    logits, labels = case
    p, answers, present = softmax(logits, 1), logits.argmax(1), np.unique(labels)
    one_hot = np.eye(3)[labels]
    of_classes = [sklearn.roc_auc_score(labels == k, p[:, k]) for k in present]
    expected = {
        "accuracy": sklearn.accuracy_score(labels, answers),
        "balanced_accuracy": sklearn.recall_score(labels, answers, labels=present, average="macro"),
        "macro_f1": sklearn.f1_score(labels, answers, labels=present, average="macro", zero_division=0),
        "f1@c": sklearn.f1_score(labels, answers, labels=[2], average="macro", zero_division=0),
        "auroc": np.mean(of_classes),
        "auroc@c": sklearn.roc_auc_score(labels == 2, p[:, 2]),
        "brier": np.mean([3 * sklearn.mean_squared_error(one_hot[i], p[i]) for i in range(len(p))]),
        "cross_entropy": sklearn.log_loss(labels, p, labels=[0, 1, 2]),
        "top2": np.mean(
            [label in sorted(range(3), key=lambda k: -row[k])[:2] for row, label in zip(p, labels)]
        ),
        "cost": np.mean([COSTS[label, answer] for label, answer in zip(labels, answers)]),
        "ece": calibration.ece(p, labels).value,
    }
    if len(present) == 3 and not np.any([len(set(row)) < 3 for row in p.round(12)]):
        assert expected["top2"] == sklearn.top_k_accuracy_score(labels, p, k=2, labels=[0, 1, 2])
        assert expected["auroc"] == pytest.approx(
            sklearn.roc_auc_score(labels, p, multi_class="ovr", average="macro")
        )
    for name, value in expected.items():
        assert mean_of(name, logits, labels) == pytest.approx(value, abs=1e-9), name
    if len(present) == 3:
        assert expected["balanced_accuracy"] == sklearn.balanced_accuracy_score(labels, answers)


def test_two_classes_are_the_binary_metrics() -> None:
    random = np.random.default_rng(0)
    labels = random.integers(2, size=200)
    logits = random.normal(size=(200, 2))
    logits[np.arange(200), labels] += 1
    p = softmax(logits, 1)
    found = {name: metric_named(name, labels, ["0", "1"]) for name in ("auroc", "brier", "f1@1")}
    assert found["auroc"].values(p, labels).mean() == pytest.approx(sklearn.roc_auc_score(labels, p[:, 1]))
    assert found["f1@1"].values(logits, labels).mean() == pytest.approx(
        sklearn.f1_score(labels, logits.argmax(1))
    )
    assert found["brier"].values(logits, labels).mean() == pytest.approx(
        2 * sklearn.brier_score_loss(labels, p[:, 1])
    )


def test_the_variance_of_pseudo_values_is_that_of_the_bootstrap_and_of_delong() -> None:
    random = np.random.default_rng(1)
    labels = random.choice(3, size=600, p=[0.6, 0.3, 0.1])
    logits = random.normal(size=(600, 3))
    logits[np.arange(600), labels] += 1.5
    p = softmax(logits, 1)
    draws = [random.integers(600, size=600) for _ in range(300)]
    for name in ("balanced_accuracy", "macro_f1", "f1@2", "auroc", "auroc@2"):
        metric = metric_named(name, labels, ["0", "1", "2"])
        scores = p if metric.needs == "order" else logits
        resampled = [metric.values(scores[rows], labels[rows]).mean() for rows in draws]
        error = metric.values(scores, labels).std() / math.sqrt(600)
        assert error == pytest.approx(np.std(resampled), rel=0.15), name
    one = metric_named("auroc@2", labels, ["0", "1", "2"])
    assert one.estimate(p, labels) == ranking.auroc(p, labels).each[2]


def test_an_image_without_an_answer_counts_as_the_worst_where_there_is_one() -> None:
    logits = np.array([[9.0, 0, 0], [np.nan, 0, 0], [0, 9, 0]])
    labels = np.array([0, 2, 1])
    for name, value in {"brier": 2.0, "accuracy": 0.0, "cost": 10.0, "top2": 0.0}.items():
        metric = metric_named(name, labels, list("abc"), COSTS if name == "cost" else None)
        assert metric.counts_no_answer
        assert metric.values(logits, labels)[1] == value
    assert not any(METRICS[name].counts_no_answer for name in ("auroc", "ece", "cross_entropy"))


def test_constant_scores_rank_by_chance_and_values_do_not_vary() -> None:
    labels = np.array([0, 1, 2, 0])
    values = metric_named("auroc", labels, list("abc")).values(np.full((4, 3), 1 / 3), labels)
    assert values == pytest.approx(np.full(4, 0.5))


@pytest.mark.parametrize(
    ("name", "labels", "message"),
    [
        ("f1@d", [0, 1], "there is no class 'd'"),
        ("f1@c", [0, 1], "none of the 2 images is of the class c"),
        ("auroc@a", [0, 0], "all of the 2 images are of the class a"),
        ("auroc", [1, 1], "all of one class"),
        ("top5", [0, 1], "always 100 % of 3 classes"),
        ("top3", [0, 1], "always 100 % of 3 classes"),
        ("cost", [0, 1], "--costs FILE"),
        ("f1", [0, 1], "did you mean 'macro_f1'"),
        ("log_loss", [0, 1], "did you mean 'cross_entropy'"),
        ("roc_auc", [0, 1], "did you mean 'auroc'"),
        ("acuracy", [0, 1], "did you mean 'accuracy'"),
        ("auroc_calibrated", [0, 1], "valid: "),
        ("top1", [0, 1], "did you mean 'accuracy'"),
        ("top0", [0, 1], "valid: "),
        ("f1@", [0, 1], "valid: "),
    ],
)
def test_what_is_no_metric_of_these_images(name: str, labels: list[int], message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("(", r"\(")):
        metric_named(name, np.array(labels), list("abc"))


def test_every_name_of_the_list_is_a_metric() -> None:
    labels = np.arange(12) % 6
    for name in NAMES:
        named = name.replace("CLASS", "2")
        costs = 1 - np.eye(6) if name == "cost" else None
        assert metric_named(named, labels, list("012345"), costs).measure.words
        assert measure_of(named).name == named
    assert set(METRICS) == set(MEASURES) - {"cost"}


def test_figures_are_written_in_their_unit() -> None:
    entropy, balanced, brier = (MEASURES[name] for name in ("cross_entropy", "balanced_accuracy", "brier"))
    assert entropy.amount(-0.031) == "0.0310 nats of cross-entropy"
    assert entropy.asked(0.01) == "0.01 nats of cross-entropy"
    assert balanced.amount(0.013) == "1.3 points of balanced accuracy"
    assert balanced.asked(0.01) == "1 point of balanced accuracy"
    assert balanced.amount(0.0001) == "0.01 points of balanced accuracy"
    assert brier.amount(0.012) == "0.0120 in Brier score"
    assert brier.interval(-0.00001, 0.02) == "0.0000 to 0.0200"
    assert not brier.is_better(0.1)
    assert MEASURES["accuracy"].amount(0.013) == "1.3 points"
    assert classification.top_k(np.eye(3), np.arange(3), 1).value == 1
