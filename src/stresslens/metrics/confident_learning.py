"""Confident learning (Northcutt, Jiang & Chuang 2021, JAIR 70): which labels are probably wrong.

Pure functions of given labels (N,) and out-of-fold probabilities (N, K): those of models that were
not trained on the image.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stresslens.core.answers import NO_ANSWER, predicted
from stresslens.metrics.classification import Labels
from stresslens.metrics.intervals import Floats

ROUNDING = 1e-6
"""By so much a probability may miss a threshold: equal probabilities have a mean that is rounded."""


def class_thresholds(labels: Labels, probabilities: Floats) -> Floats:
    """(K,) the mean probability of a class over the images with its label (equation 2); infinity for a
    class without images."""
    counts = np.bincount(labels, minlength=probabilities.shape[1])
    sums = np.bincount(labels, probabilities[np.arange(len(labels)), labels], probabilities.shape[1])
    thresholds: Floats = np.full(len(counts), np.inf)
    return np.divide(sums, counts, out=thresholds, where=counts > 0)


def confident_classes(labels: Labels, probabilities: Floats) -> Labels:
    """(N,) the class that an image belongs to with confidence: of the classes whose probability reaches
    their threshold, the most probable one. `NO_ANSWER` where none does."""
    reaches = probabilities >= class_thresholds(labels, probabilities) - ROUNDING
    return predicted(np.where(reaches, probabilities, -np.inf))


def confident_joint(labels: Labels, probabilities: Floats) -> Labels:
    """(K, K) counts of images: rows are given labels, columns confident classes (equation 1)."""
    classes = probabilities.shape[1]
    counts = np.zeros((classes, classes), np.int64)
    confident = confident_classes(labels, probabilities)
    known = confident != NO_ANSWER
    np.add.at(counts, (labels[known], confident[known]), 1)
    return counts


def calibrated_joint(labels: Labels, probabilities: Floats) -> Floats:
    """(K, K) the estimated numbers of images by given label (rows) and true class (columns): the
    confident joint, with each row scaled to the number of images with that label (equation 3).

    A row without a confident image counts as right.
    """
    counts = np.bincount(labels, minlength=probabilities.shape[1])
    joint = confident_joint(labels, probabilities).astype(np.float64)
    empty = joint.sum(1) == 0
    joint[empty, empty] = 1
    scaled: Floats = joint * (counts / joint.sum(1))[:, None]
    return scaled


def self_confidence(labels: Labels, probabilities: Floats) -> Floats:
    """(N,) the probability of the given label."""
    return probabilities[np.arange(len(labels)), labels]


def normalized_margin(labels: Labels, probabilities: Floats) -> Floats:
    """(N,) the probability of the given label minus that of the most probable other class, from -1 to
    1; below 0 another class is more probable."""
    others = probabilities.copy()
    others[np.arange(len(labels)), labels] = -np.inf
    margin: Floats = self_confidence(labels, probabilities) - others.max(1)
    return margin


def probably_wrong(labels: Labels, probabilities: Floats) -> NDArray[np.bool_]:
    """(N,) which labels are probably wrong, by "prune by noise rate" (section 4.2).

    For every pair of classes these are the images with given label i and the largest difference
    p(j) - p(i), as many as the calibrated joint has at (i, j), in whole numbers (`whole_numbers`). An
    image whose given label is its most probable class is never among them. On digits with 2 and 10 % of
    flips it finds more of them than the off-diagonal images of the confident joint, with nearly the same
    precision.
    """
    joint = calibrated_joint(labels, probabilities)
    found = np.zeros(len(labels), bool)
    for i in np.unique(labels):
        rows, taken = np.flatnonzero(labels == i), np.flatnonzero(joint[i])
        margins = probabilities[np.ix_(rows, taken)] - probabilities[rows, i][:, None]
        order = np.argsort(-margins, axis=0, kind="stable")
        counts = whole_numbers(joint[i, taken], np.take_along_axis(margins, order, 0))
        for j, count, first in zip(taken, counts, order.T):
            if i != j:
                found[rows[first[:count]]] = True
    found &= predicted(probabilities) != labels
    return found


def whole_numbers(row: Floats, margins: Floats) -> Labels:
    """(K,) the numbers of a row (K,) of the calibrated joint, rounded so that they keep the row's sum n.

    Each is rounded down, and those with the largest remainders are raised by one until the sum is n.
    The number of wrong labels in the row is then off by less than one; with each number rounded by
    itself it is off by up to (K - 1) / 2. Remainders are often equal, because counts are. Of these, the
    number is raised whose next image has the largest margin: `margins` (n, K) fall in each column.
    """
    numbers = np.floor(row).astype(np.int64)
    missing = len(margins) - int(numbers.sum())
    following = np.append(margins, np.full((1, len(row)), -np.inf), axis=0)[numbers, np.arange(len(row))]
    numbers[np.lexsort((-following, numbers - row))[:missing]] += 1
    return numbers
