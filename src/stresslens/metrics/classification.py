"""What predictions are worth: pure functions of scores (N, K) and labels (N,), each figure with its
n and interval."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from stresslens.core.types import Estimate
from stresslens.metrics.intervals import Floats, balanced, bootstrap_mean, wilson

Labels = NDArray[np.int64]


def predicted(scores: Floats) -> Labels:
    """(N,) the class of the highest score, the first of several."""
    return np.asarray(scores.argmax(1))


def accuracy(scores: Floats, labels: Labels) -> Estimate:
    return wilson(int((predicted(scores) == labels).sum()), len(labels))


def top_k(scores: Floats, labels: Labels, k: int) -> Estimate:
    """Share of images whose label is among the k highest scores; ties count against the label's
    favour by class order."""
    own = np.take_along_axis(scores, labels[:, None], 1)
    earlier = np.arange(scores.shape[1]) < labels[:, None]
    rank = (scores > own).sum(1) + ((scores == own) & earlier).sum(1)
    return wilson(int((rank < k).sum()), len(labels))


def confusion_matrix(scores: Floats, labels: Labels) -> Labels:
    """(K, K) counts: rows the truth, columns the prediction."""
    classes = scores.shape[1]
    return np.bincount(labels * classes + predicted(scores), minlength=classes * classes).reshape(
        classes, classes
    )


def recalls(confusion: Labels) -> list[Estimate]:
    """(K) share of each class found (Wilson); NaN for a class without images."""
    return [wilson(int(right), int(n)) for right, n in zip(np.diagonal(confusion), confusion.sum(1))]


def precisions(confusion: Labels) -> list[Estimate]:
    """(K) share of each class's predictions that are right (Wilson); NaN for a class never predicted."""
    return [wilson(int(right), int(n)) for right, n in zip(np.diagonal(confusion), confusion.sum(0))]


def f1_scores(confusion: Labels) -> list[Estimate]:
    """(K) harmonic mean of precision and recall; n is the images that are of the class or taken for
    it, NaN where none is.

    F1 = 2J/(1 + J) of J, the share of those n images that are both: Wilson's interval of J, carried over.
    """
    right = np.diagonal(confusion)
    either = confusion.sum(0) + confusion.sum(1) - right
    found = [wilson(int(r), int(n)) for r, n in zip(right, either)]
    return [replace(j, value=_f1(j.value), low=_f1(j.low), high=_f1(j.high)) for j in found]


def _f1(jaccard: float) -> float:
    return 2 * jaccard / (1 + jaccard)


def balanced_accuracy(confusion: Labels) -> Estimate:
    """Mean recall over the classes that have images."""
    return balanced(recalls(confusion))


def per_class(confusion: Labels) -> dict[str, list[Estimate]]:
    """Precision, recall and F1 of each class."""
    return {"precision": precisions(confusion), "recall": recalls(confusion), "f1": f1_scores(confusion)}


def log_softmax(logits: Floats) -> Floats:
    shifted = logits - logits.max(1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(1, keepdims=True)))


def cross_entropy_of_each(logits: Floats, labels: Labels) -> Floats:
    """(N,) negative log-probability of the truth."""
    return np.asarray(-np.take_along_axis(log_softmax(logits), labels[:, None], 1)[:, 0])


def cross_entropy(logits: Floats, labels: Labels) -> Estimate:
    return bootstrap_mean(cross_entropy_of_each(logits, labels))


def majority_baseline(train_labels: Labels, labels: Labels) -> Estimate:
    """Accuracy of always answering the training split's most frequent class."""
    return wilson(int((labels == np.bincount(train_labels).argmax()).sum()), len(labels))
