"""Classification metrics: accuracy, top-k, confusion matrix, precision, recall, F1, cross-entropy.

Pure functions of scores (N, K) and labels (N,); each result has its n and interval.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from stresslens.core.answers import answered, predicted
from stresslens.core.types import Estimate
from stresslens.metrics.intervals import Floats, balanced, bounded_mean, logit_normal, wilson

Labels = NDArray[np.int64]

UNSEEN_LOSS = 1.5
"""How many times as large as the largest loss that of an image is taken to be that was not seen."""
FEWEST_WRONG = 3
"""With fewer wrong answers, nothing is known of how large a loss can be."""
AT_LEAST = f"Gaffke; fewer than {FEWEST_WRONG} wrong answers, so without an upper end"
"""The method of a mean loss whose interval has no upper end."""


def accuracy(scores: Floats, labels: Labels) -> Estimate:
    """Share of images that are classified correctly; no answer is a wrong answer."""
    return wilson(int((predicted(scores) == labels).sum()), len(labels))


def top_k(scores: Floats, labels: Labels, k: int) -> Estimate:
    """Share of images whose label is among the k highest scores (`in_top_k`)."""
    return wilson(int(in_top_k(scores, labels, k).sum()), len(labels))


def in_top_k(scores: Floats, labels: Labels, k: int) -> NDArray[np.bool_]:
    """(N,) whether the label is among the k highest scores.

    Of classes with equal scores, the one with the lower number ranks first. Without an answer
    (`core.answers`), no class does.
    """
    of_label = np.take_along_axis(scores, labels[:, None], 1)
    earlier = np.arange(scores.shape[1]) < labels[:, None]
    rank = (scores > of_label).sum(1) + ((scores == of_label) & earlier).sum(1)
    return np.asarray((rank < k) & answered(scores))


def confusion_matrix(scores: Floats, labels: Labels) -> Labels:
    """(K, K) counts: rows are true classes, columns predicted classes.

    If some images have no answer, (K, K + 1): the last column counts them.
    """
    classes = scores.shape[1]
    counts = np.zeros((classes, classes + 1), np.int64)
    np.add.at(counts, (labels, predicted(scores)), 1)  # NO_ANSWER is the last column
    return counts if counts[:, -1].any() else counts[:, :-1]


def recalls(confusion: Labels) -> list[Estimate]:
    """(K) recall of each class, with Wilson's interval; NaN for a class without images."""
    return [wilson(int(correct), int(n)) for correct, n in zip(np.diagonal(confusion), confusion.sum(1))]


def precisions(confusion: Labels) -> list[Estimate]:
    """(K) precision of each class, with Wilson's interval; NaN for a class that is never
    predicted."""
    return [wilson(int(correct), int(n)) for correct, n in zip(np.diagonal(confusion), confusion.sum(0))]


def f1_scores(confusion: Labels) -> list[Estimate]:
    """(K) F1 of each class, the harmonic mean of precision and recall.

    n is the number of images that are of the class or predicted as it; F1 is NaN if there is none.
    F1 = 2J/(1 + J), where J (Jaccard index) is the share of those n images that are both. Wilson's
    interval of J is transformed in the same way.
    """
    correct = np.diagonal(confusion)
    either = confusion.sum(0)[: len(correct)] + confusion.sum(1) - correct
    jaccard = [wilson(int(c), int(n)) for c, n in zip(correct, either)]
    return [replace(j, value=_f1(j.value), low=_f1(j.low), high=_f1(j.high)) for j in jaccard]


def _f1(jaccard: float) -> float:
    return 2 * jaccard / (1 + jaccard)


def balanced_accuracy(confusion: Labels) -> Estimate:
    """Mean recall over the classes that have images."""
    return balanced(recalls(confusion))


def per_class(confusion: Labels) -> dict[str, list[Estimate]]:
    """Precision, recall and F1 of each class."""
    return {"precision": precisions(confusion), "recall": recalls(confusion), "f1": f1_scores(confusion)}


def averages(scores: Floats, labels: Labels) -> dict[str, dict[str, Estimate]]:
    """The means of precision, recall and F1 over the classes that have images: `macro`, and
    `weighted` by their numbers of images.

    The precision of a class that is never predicted counts as 0, as its recall does. (So macro
    recall is the balanced accuracy, and weighted recall the accuracy.) Intervals of precision and
    F1 are by influence functions on the logit scale, where the weights vary with the images too;
    for a mean of 0 or 1 they are those of `balanced`.
    """
    confusion = confusion_matrix(scores, labels)
    answers, classes, n = predicted(scores), scores.shape[1], len(labels)
    support, named = confusion.sum(1), confusion.sum(0)[:classes]
    right = (labels == answers).astype(float)
    each = per_class(confusion)
    means: dict[str, dict[str, Estimate]] = {}
    for kind, weights in (
        ("macro", (support > 0) / max(1, (support > 0).sum())),
        ("weighted", support / max(1, n)),
    ):
        means[kind] = {
            "recall": balanced_accuracy(confusion) if kind == "macro" else accuracy(scores, labels)
        }
        for name, images in (("precision", named), ("f1", support + named)):
            values = np.nan_to_num([estimate.value for estimate in each[name]])
            value = float(weights @ values)
            slope = np.append(weights / np.maximum(images, 1), 0.0)  # the last is of no answer
            lost = slope * np.append(values, 0.0)
            influence = (
                slope[answers] * right - lost[answers]
                if name == "precision"
                else 2 * slope[labels] * right - lost[labels] - lost[answers]
            )
            influence = n * influence + (values[labels] - value if kind == "weighted" else 0.0)
            varies = 0 < value < 1 and bool(influence.any())
            known = [estimate for estimate, images_of in zip(each[name], support) if images_of]
            means[kind][name] = (
                logit_normal(value, influence)
                if varies
                else replace(balanced(known), value=value if n else math.nan)
            )
    return means


def log_softmax(logits: Floats) -> Floats:
    shifted = logits - logits.max(1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(1, keepdims=True)))


def cross_entropy_of_each(logits: Floats, labels: Labels) -> Floats:
    """(N,) negative log-probability of the label."""
    return np.asarray(-np.take_along_axis(log_softmax(logits), labels[:, None], 1)[:, 0])


def cross_entropy(logits: Floats, labels: Labels) -> Estimate:
    """Mean cross-entropy, in nats; infinite, without an interval, if a label is of a class that the
    model rules out (-inf).

    A right answer costs at most log K, but a wrong one has no largest loss, and a few of them
    decide the mean. One more image is taken to lose `UNSEEN_LOSS` times the largest loss seen. With
    fewer than `FEWEST_WRONG` wrong answers the interval has no upper end (infinity): the loss is at
    least `low`.
    """
    losses = cross_entropy_of_each(logits, labels)
    if np.isposinf(losses).any():
        return Estimate(np.inf, np.nan, np.nan, len(labels), "Gaffke")
    if (predicted(logits) != labels).sum() >= FEWEST_WRONG:
        return bounded_mean(losses, (0.0, UNSEEN_LOSS * float(losses.max())))
    return replace(bounded_mean(losses, (0.0, math.inf)), method=AT_LEAST)


def majority_baseline(train_labels: Labels, labels: Labels) -> Estimate:
    """Accuracy of always predicting the training split's most frequent class."""
    return wilson(int((labels == np.bincount(train_labels).argmax()).sum()), len(labels))
