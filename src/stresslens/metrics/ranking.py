"""How well scores (N, K) order images: each class against the rest, and the mean over the classes."""

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
"""With fewer images on a side, their spread says too little about that of the population."""


class Ranking(NamedTuple):
    """A figure of each class against the rest, and its mean over the classes that have one."""

    each: list[Estimate]
    mean: Estimate


def auroc(scores: Floats, labels: Labels) -> Ranking:
    """Area under the ROC curve: how often an image of the class scores above one of another; ties count half.

    DeLong et al.'s (1988) variance on the logit scale. Where it says nothing (complete separation,
    or fewer than `FEW` images on a side): Wilson's interval over as many trials as the smaller side
    has images, the largest variance possible (Birnbaum & Klose 1957). A class without images, or
    without others, is NaN with n = 0.
    """
    return _one_against_rest(scores, labels, _area, lambda own, others: min(own, others))


def auprc(scores: Floats, labels: Labels) -> Ranking:
    """Average precision: the mean over the class's images of the precision at their score, tied
    images entering together.

    Intervals by influence functions on the logit scale; where those say nothing, as for `auroc`,
    Wilson's over as many trials as the class has images (Boyd et al. 2013). The figure is biased
    upwards, for each image counts itself among the right ones above it: what leaving it out would
    take away is taken off the interval's lower end. The baseline is the class's share of the
    images.
    """
    return _one_against_rest(scores, labels, _average_precision, lambda own, others: own)


def _one_against_rest(
    scores: Floats,
    labels: Labels,
    statistic: Callable[[Floats, NDArray[np.bool_]], tuple[float, Floats, float]],
    trials: Callable[[int, int], int],
) -> Ranking:
    """Class by class, so that only (N,) is held beside the scores. `statistic` gives value,
    influences (N,) and upward bias."""
    n, classes = scores.shape
    each: list[Estimate] = []
    values: list[float] = []
    influences, bias = np.zeros(n), 0.0
    for k in range(classes):
        own = labels == k
        count = int(own.sum())
        if count in (0, n):
            each.append(wilson(0, 0))
            continue
        value, influence, upward = statistic(scores[:, k], own)
        values.append(value)
        influences += influence
        bias += upward
        if min(count, n - count) >= FEW and 0 < value < 1:
            each.append(_lowered(logit_normal(value, influence), upward))
        else:
            few = trials(count, n - count)
            each.append(replace(wilson(value * few, few), n=n))
    return Ranking(each, _mean(values, influences, bias, [estimate for estimate in each if estimate.n]))


def _lowered(estimate: Estimate, by: float) -> Estimate:
    return replace(estimate, low=max(0.0, estimate.low - by))


def _mean(values: list[float], influences: Floats, bias: float, known: list[Estimate]) -> Estimate:
    """The classes' mean with the interval of its influences, which know how the classes hang
    together; where every class is separated completely, the mean of their bounds."""
    if not known:
        return wilson(0, 0)
    value = float(np.mean(values))
    if 0 < value < 1 and influences.any():
        return _lowered(logit_normal(value, influences / len(known)), bias / len(known))
    low, high = (float(np.mean([getattr(estimate, end) for estimate in known])) for end in ("low", "high"))
    return Estimate(value, low, high, len(influences), "Wilson")


def _area(scores: Floats, own: NDArray[np.bool_]) -> tuple[float, Floats, float]:
    """The area and what each image adds to it: its placement among those of the other side, as
    DeLong's variance counts it."""
    from scipy.stats import rankdata

    ranks, placements = rankdata(scores), np.empty(len(scores))
    for side in (own, ~own):
        placements[side] = (ranks[side] - rankdata(scores[side])) / np.count_nonzero(~side)
    placements[~own] = 1 - placements[~own]
    value = float(placements[own].mean())
    influence = np.zeros(len(scores))
    for side in (own, ~own):
        count = int(side.sum())
        influence[side] = (placements[side] - value) * len(scores) / math.sqrt(count * max(1, count - 1))
    return value, influence, 0.0


def _average_precision(scores: Floats, own: NDArray[np.bool_]) -> tuple[float, Floats, float]:
    """Average precision and what each image adds to it: by its own precision, and by moving that of
    the class's images below."""
    n, count = len(scores), int(own.sum())
    _, group, size = np.unique(
        -scores, return_inverse=True, return_counts=True
    )  # groups of equal scores, highest first
    found = np.bincount(group, weights=own)  # of the class, per group
    taken, hits = np.cumsum(size), np.cumsum(found)
    precision = hits / taken
    value = float(found @ precision) / count
    raised, lowered = (np.cumsum((found * part / taken**2)[::-1])[::-1] for part in (taken - hits, hits))
    influence = np.where(own, precision[group] - value + raised[group], -lowered[group]) * n / count
    alone = found @ ((taken - hits) / (taken * np.maximum(taken - 1, 1)))
    return value, influence, float(alone) / count
