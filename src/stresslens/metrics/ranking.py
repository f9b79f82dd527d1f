"""Ranking metrics of scores (N, K), one class against the rest: AUROC and average precision
(AUPRC)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stresslens.core.types import Estimate
from stresslens.metrics.classification import Labels
from stresslens.metrics.intervals import Floats, logit_normal, wilson

FEW = 10
"""With fewer images on a side, their variance is a poor estimate of the population's."""


class Ranking(NamedTuple):
    """A score of each class against the rest, and its mean over the classes that have one."""

    each: list[Estimate]
    mean: Estimate


def auroc(scores: Floats, labels: Labels) -> Ranking:
    """Area under the ROC curve of each class against the rest.

    It is the probability that an image of the class has a higher score than another image; ties
    count half. The interval uses the variance of DeLong et al. (1988) on the logit scale. If that
    is not informative (complete separation, or fewer than `FEW` images on a side), it is Wilson's
    with the number of images of the smaller side as trials, which is the largest possible variance
    (Birnbaum & Klose 1957). A class without images, or without others, is NaN with n = 0.
    """
    return _one_against_rest(scores, labels, _area, lambda in_class, others: min(in_class, others))


def auroc_values(scores: Floats, labels: Labels, classes: Labels) -> Floats:
    """(N,) pseudo-values of the mean AUROC of `classes`, which all have images and others: their mean
    is the AUROC, and their variance / N that of DeLong et al. (1988)."""
    found = [_area(scores[:, k], labels == k) for k in classes]
    return np.asarray(np.mean([value for value, *_ in found]) + np.mean([each for _, each, _ in found], 0))


def auprc(scores: Floats, labels: Labels) -> Ranking:
    """Average precision (AUPRC) of each class against the rest.

    It is the mean, over the class's images, of the precision at their score; images with equal
    scores enter together. The interval is by influence functions on the logit scale. If that is not
    informative, as for `auroc`, it is Wilson's with the number of the class's images as trials
    (Boyd et al. 2013). The estimate is biased upwards, because each image counts itself; the amount
    that leaving it out would take away is subtracted from the interval's lower end. The baseline is
    the class's share of the images.
    """
    return _one_against_rest(scores, labels, _average_precision, lambda in_class, others: in_class)


def _one_against_rest(
    scores: Floats,
    labels: Labels,
    statistic: Callable[[Floats, NDArray[np.bool_]], tuple[float, Floats, float]],
    trials: Callable[[int, int], int],
) -> Ranking:
    """A statistic of each class against the rest, computed class by class to save memory.

    `statistic` returns the value, the influences (N,) and the upward bias.
    """
    n, classes = scores.shape
    each: list[Estimate] = []
    values: list[float] = []
    influences, bias = np.zeros(n), 0.0
    for k in range(classes):
        in_class = labels == k
        count = int(in_class.sum())
        if count in (0, n):
            each.append(wilson(0, 0))
            continue
        value, influence, upward = statistic(scores[:, k], in_class)
        values.append(value)
        influences += influence
        bias += upward
        if min(count, n - count) >= FEW and 0 < value < 1:
            each.append(_lowered(logit_normal(value, influence), upward))
        else:
            few = trials(count, n - count)
            each.append(replace(wilson(value * few, few), n=n))
    return Ranking(each, _mean(values, influences, bias, [estimate for estimate in each if estimate.n]))


def cross_validated_auroc(
    scores: Floats, positive: NDArray[np.bool_], fold: NDArray[np.int64], *, widened: float = 1.0
) -> Estimate:
    """The mean over the folds of the area under the ROC curve of held-out scores (N,).

    `fold` (N,) is the fold of each image, and each has images of both sides. Scores of different folds
    are of different classifiers and are not compared. The interval is that of LeDell, Petersen & van der
    Laan (2015): each fold's influences (DeLong et al. 1988) on the logit scale. It takes the classifiers
    as given; `widened` multiplies its standard error. With complete separation, or none, it is Wilson's
    with the smaller side as trials, as for `auroc`.
    """
    folds, influence, values = np.unique(fold), np.empty(len(scores)), []
    for k in folds:
        rows = fold == k
        value, of_fold, _ = _area(scores[rows], positive[rows])
        values.append(value)
        influence[rows] = of_fold * len(scores) / (len(folds) * rows.sum())
    mean = float(np.mean(values))
    if 0 < mean < 1 and influence.any():
        return logit_normal(mean, widened * influence)
    trials = min(int(positive.sum()), int((~positive).sum()))
    return replace(wilson(mean * trials, trials), n=len(scores))


def auroc_difference(
    one: Floats, other: Floats, positive: NDArray[np.bool_], *, level: float = 0.95
) -> tuple[Estimate, float]:
    """The area under the ROC curve of scores `one` (N,) minus that of `other`, of the same images, and p of
    no difference: normal, with the paired variance of DeLong et al. (1988). Both sides need an image.
    """
    from scipy.special import ndtr, ndtri

    (a, of_one, _), (b, of_other, _) = _area(one, positive), _area(other, positive)
    value, n = a - b, len(positive)
    error = math.sqrt(float(np.square(of_one - of_other).sum())) / n
    half = float(ndtri(0.5 + level / 2)) * error
    p = float(2 * ndtr(-abs(value) / error)) if error > 0 else float(value == 0)
    return Estimate(value, max(-1.0, value - half), min(1.0, value + half), n, "DeLong, paired", level), p


def _lowered(estimate: Estimate, by: float) -> Estimate:
    return replace(estimate, low=max(0.0, estimate.low - by))


def _mean(values: list[float], influences: Floats, bias: float, known: list[Estimate]) -> Estimate:
    """The mean over the classes, with an interval from the sum of their influences.

    The sum accounts for the dependence between classes. If every class is completely separated, the
    bounds are the means of the classes' bounds.
    """
    if not known:
        return wilson(0, 0)
    value = float(np.mean(values))
    if 0 < value < 1 and influences.any():
        return _lowered(logit_normal(value, influences / len(known)), bias / len(known))
    low, high = (float(np.mean([getattr(estimate, end) for estimate in known])) for end in ("low", "high"))
    return Estimate(value, low, high, len(influences), "Wilson")


def _area(scores: Floats, in_class: NDArray[np.bool_]) -> tuple[float, Floats, float]:
    """The area, and each image's influence: its placement among the other side (DeLong)."""
    placements = np.empty(len(scores))
    for side in (in_class, ~in_class):
        others = np.sort(scores[~side])
        below, up_to = (np.searchsorted(others, scores[side], end) for end in ("left", "right"))
        placements[side] = (below + up_to) / 2 / len(others)
    placements[~in_class] = 1 - placements[~in_class]
    value = float(placements[in_class].mean())
    influence = np.zeros(len(scores))
    for side in (in_class, ~in_class):
        count = int(side.sum())
        influence[side] = (placements[side] - value) * len(scores) / math.sqrt(count * max(1, count - 1))
    return value, influence, 0.0


def _average_precision(scores: Floats, in_class: NDArray[np.bool_]) -> tuple[float, Floats, float]:
    """Average precision, each image's influence, and the upward bias.

    An image has influence by its own precision, and by that of the class's images below it.
    """
    n, count = len(scores), int(in_class.sum())
    # Groups of equal scores, the highest first.
    _, group, size = np.unique(-scores, return_inverse=True, return_counts=True)
    positives = np.bincount(group, weights=in_class)  # in each group
    retrieved, hits = np.cumsum(size), np.cumsum(positives)
    precision = hits / retrieved
    value = float(positives @ precision) / count
    raised, lowered = (
        np.cumsum((positives * part / retrieved**2)[::-1])[::-1] for part in (retrieved - hits, hits)
    )
    influence = np.where(in_class, precision[group] - value + raised[group], -lowered[group]) * n / count
    bias = positives @ ((retrieved - hits) / (retrieved * np.maximum(retrieved - 1, 1)))
    return value, influence, float(bias) / count
