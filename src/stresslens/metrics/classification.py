"""What predictions are worth: pure functions of scores (N, K) and labels (N,), each figure with its n and interval."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stresslens.core.types import Estimate
from stresslens.metrics.intervals import Floats, bootstrap_confusion, bootstrap_mean, wilson

Labels = NDArray[np.int64]


def predicted(scores: Floats) -> Labels:
    """(N,) the class of the highest score, the first of several."""
    return np.asarray(scores.argmax(1))


def accuracy(scores: Floats, labels: Labels) -> Estimate:
    return wilson(int((predicted(scores) == labels).sum()), len(labels))


def top_k(scores: Floats, labels: Labels, k: int) -> Estimate:
    """Share of images whose label is among the k highest scores; ties count against the label's favour by class order."""
    own = np.take_along_axis(scores, labels[:, None], 1)
    earlier = np.arange(scores.shape[1]) < labels[:, None]
    rank = (scores > own).sum(1) + ((scores == own) & earlier).sum(1)
    return wilson(int((rank < k).sum()), len(labels))


def confusion_matrix(scores: Floats, labels: Labels) -> Labels:
    """(K, K) counts: rows the truth, columns the prediction."""
    classes = scores.shape[1]
    return np.bincount(labels * classes + predicted(scores), minlength=classes * classes).reshape(classes, classes)


def _ratio(part: Floats, whole: Floats) -> Floats:
    return np.divide(part, whole, out=np.zeros(np.broadcast(part, whole).shape), where=whole > 0)


def _diagonal(confusion: Labels) -> Floats:
    return np.diagonal(confusion, axis1=-2, axis2=-1).astype(float)


def recalls(confusion: Labels) -> Floats:
    """(…, K) share of each class found; 0 for a class without images."""
    return _ratio(_diagonal(confusion), confusion.sum(-1))


def f1_scores(confusion: Labels) -> Floats:
    """(…, K) harmonic mean of precision and recall; 0 where both are."""
    return _ratio(2 * _diagonal(confusion), confusion.sum(-1) + confusion.sum(-2))


def balanced_accuracy(confusion: Labels) -> Estimate:
    """Mean recall over the classes that have images."""

    def mean_recall(matrix: Labels) -> Floats:
        support = matrix.sum(-1)
        return _ratio(recalls(matrix).sum(-1), (support > 0).sum(-1))[..., None]

    return bootstrap_confusion(confusion, mean_recall)[0]


def per_class(confusion: Labels) -> dict[str, list[Estimate]]:
    """Precision and recall (Wilson) and F1 (bootstrap) of each class."""
    right, truth, claimed = np.diagonal(confusion), confusion.sum(1), confusion.sum(0)
    return {
        "precision": [wilson(int(r), int(n)) for r, n in zip(right, claimed)],
        "recall": [wilson(int(r), int(n)) for r, n in zip(right, truth)],
        "f1": bootstrap_confusion(confusion, f1_scores),
    }


def log_softmax(logits: Floats) -> Floats:
    shifted = logits - logits.max(1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(1, keepdims=True)))


def cross_entropy(logits: Floats, labels: Labels) -> Estimate:
    """Mean negative log-probability of the truth."""
    return bootstrap_mean(-np.take_along_axis(log_softmax(logits), labels[:, None], 1)[:, 0])


def majority_baseline(train_labels: Labels, labels: Labels) -> Estimate:
    """Accuracy of always answering the training split's most frequent class."""
    return wilson(int((labels == np.bincount(train_labels).argmax()).sum()), len(labels))
