"""Tests of whether two samples come from one distribution: a classifier that tells them apart, and
differences of means."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stresslens.core.types import Estimate
from stresslens.metrics.intervals import Floats
from stresslens.metrics.ranking import cross_validated_auroc

FOLDS, PERMUTATIONS = 5, 999
POWER = 0.8
OUTLYING = 5.0
"""Standardised features are cut at so many standard deviations, so that single outliers do not decide."""
SHRINKAGE = 0.5
"""Weight of the spherical covariance in the discriminant's. Half is the best of 0.01, 0.1 and 0.5 for
small drifts of digits and CIFAR-10 with 100 and 400 images a set."""
CONSTANT = 1e-9
"""A feature whose standard deviation is smaller does not vary."""


class TwoSampleTest(NamedTuple):
    """How well a classifier tells two samples apart.

    `p` is for the hypothesis that both come from one distribution. `chance` are the AUROCs of
    permuted samples, sorted; `spread` is the standard error of the AUROC.
    """

    auroc: Estimate
    p: float
    chance: Floats
    spread: float

    def detectable(self, level: float) -> float:
        """The AUROC from which on a difference is found with a probability of `POWER` at least, by a
        test at this level; at most 1."""
        from scipy.special import ndtri

        place = min(len(self.chance) - 1, math.ceil((1 - level) * len(self.chance)))
        return min(1.0, float(self.chance[place]) + float(ndtri(POWER)) * self.spread)


def discriminant_test(
    values: Floats, second: NDArray[np.bool_], *, seed: int = 0, permutations: int = PERMUTATIONS
) -> TwoSampleTest:
    """The classifier two-sample test (Lopez-Paz & Oquab 2017) with Fisher's linear discriminant.

    `values` (N, D) are features of the images, `second` (N,) says which are of the second sample;
    each sample needs `FOLDS` images. The features are standardised, without looking at the samples, and
    the discriminant's covariance is shrunk. The AUROC is the mean over `FOLDS` stratified folds, with
    the interval of LeDell, Petersen & van der Laan (2015). p is that of a permutation test, which is
    exact: the samples are permuted within the folds, and the discriminant is fitted anew each time.
    """
    random = np.random.default_rng(seed)
    fold = _stratified_folds(second, random)
    observed = np.where(second, 1.0, -1.0)
    signs = np.repeat(observed[:, None], 1 + permutations, axis=1)  # (N, 1 + permutations)
    for k in range(FOLDS):
        signs[fold == k, 1:] = random.permuted(signs[fold == k, 1:], axis=0)
    z = _standardised(values)
    areas, held_out = np.zeros(1 + permutations), np.empty(len(second))
    for k in range(FOLDS):
        scores = _discriminants(z[fold != k], signs[fold != k], z[fold == k])
        areas += _areas(scores, signs[fold == k] > 0) / FOLDS
        held_out[fold == k] = scores[:, 0]
    chance = np.sort(areas[1:])
    spread = float(chance.std())
    of_ranks = math.sqrt((1 / second.sum() + 1 / (~second).sum()) / 12)  # DeLong's, without a difference
    auroc = cross_validated_auroc(held_out, second, fold, widened=max(1.0, spread / of_ranks))
    p = (1 + int((chance >= areas[0] - 1e-12).sum())) / (1 + permutations)
    return TwoSampleTest(auroc, p, chance, spread)


def _stratified_folds(second: NDArray[np.bool_], random: np.random.Generator) -> NDArray[np.int64]:
    fold = np.empty(len(second), np.int64)
    for sample in (False, True):
        rows = random.permutation(np.flatnonzero(second == sample))
        fold[rows] = np.arange(len(rows)) % FOLDS
    return fold


def _standardised(values: Floats) -> Floats:
    spread = values.std(0)
    varied = spread > CONSTANT
    return np.asarray(
        ((values[:, varied] - values[:, varied].mean(0)) / spread[varied]).clip(-OUTLYING, OUTLYING)
    )


def _discriminants(z: Floats, signs: Floats, held_out: Floats) -> Floats:
    """(M, P) scores of images `held_out` (M, D) by the discriminants of P assignments `signs` (N, P) of
    images z (N, D)."""
    if not z.shape[1]:
        return np.zeros((len(held_out), signs.shape[1]))
    centred = z - z.mean(0)
    covariance = centred.T @ centred
    sphere = max(float(np.trace(covariance)) / len(covariance), CONSTANT)
    shrunk = (1 - SHRINKAGE) * covariance + SHRINKAGE * sphere * np.eye(len(covariance))
    directions = np.linalg.solve(shrunk, centred.T @ (signs - signs.mean(0)))
    return np.asarray((held_out - z.mean(0)) @ directions)


def _areas(scores: Floats, second: NDArray[np.bool_]) -> Floats:
    """(P,) areas under the ROC curve of scores (M, P), each column for its own assignment; ties count
    half."""
    from scipy.stats import rankdata

    ranks = rankdata(scores, axis=0)
    n = second.sum(0)
    return np.asarray(((ranks * second).sum(0) - n * (n + 1) / 2) / (n * (len(scores) - n)))


class MeanDifference(NamedTuple):
    """The means of two samples, the second minus the first, and that difference in standard
    deviations (Cohen's d, pooled)."""

    means: tuple[float, float]
    difference: Estimate
    standardised: float
    p: float


def mean_difference(first: Floats, second: Floats, *, level: float = 0.95) -> MeanDifference:
    """The difference of the means of two independent samples, (n,) and (m,) with at least two values
    each, with the interval and p of Welch's (1947) t test."""
    from scipy.special import stdtr, stdtrit

    n, m = len(first), len(second)
    difference = float(second.mean() - first.mean())
    parts = float(first.var(ddof=1)) / n, float(second.var(ddof=1)) / m
    error = math.sqrt(sum(parts))
    pooled = math.sqrt((parts[0] * n * (n - 1) + parts[1] * m * (m - 1)) / (n + m - 2))
    scale = CONSTANT * max(1.0, abs(float(first.mean())))
    if error <= scale:
        p, half, standardised = (
            float(abs(difference) <= scale),
            0.0,
            0.0 if abs(difference) <= scale else math.inf,
        )
    else:
        degrees = error**4 / (parts[0] ** 2 / (n - 1) + parts[1] ** 2 / (m - 1))
        p = float(2 * stdtr(degrees, -abs(difference) / error))
        half, standardised = float(stdtrit(degrees, 0.5 + level / 2)) * error, difference / pooled
    estimate = Estimate(difference, difference - half, difference + half, n + m, "Welch's t", level)
    return MeanDifference((float(first.mean()), float(second.mean())), estimate, standardised, p)
