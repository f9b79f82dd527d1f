"""Importance of hyper-parameters: Sobol total effects by a random forest, on held-out trials."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from stresslens.core.types import Estimate
from stresslens.metrics.intervals import Floats
from stresslens.metrics.paired import holm

FOLDS, REPEATS, TREES = 5, 5, 60


@dataclass(frozen=True)
class Importance:
    """A setting's share of the variance between trials.

    `p` is for the hypothesis that the share is zero; `p_holm` is corrected (Holm) over the
    settings.
    """

    share: Estimate
    p: float
    p_holm: float = 1.0

    @property
    def real(self) -> bool:
        return self.p_holm < 1 - self.share.level and self.share.low > 0


def importances(
    columns: Mapping[str, Floats], outcome: Floats, *, level: float = 0.95, seed: int = 0
) -> dict[str, Importance]:
    """The share of the variance of `outcome` (n,) that each setting explains, with interactions.

    A setting is given as columns (n, k). A random forest (Breiman 2001) that was not trained on a
    trial predicts it twice: as it is, and with the setting's values of each of the n trials. The
    increase of the squared error, divided by twice the variance, is the total effect of Sobol
    (1993; Jansen 1999), as far as the forest can predict; with few trials it is too small. Mean and
    Student's t are over the trials (Watson & Wright 2021), with five repetitions of five folds. n
    must be at least `FOLDS`. benchmarks/importance.py simulates the error rates.
    """
    from scipy.special import stdtr, stdtrit

    n, variance = len(outcome), float(outcome.var())
    if variance == 0:
        return {
            name: Importance(Estimate(0.0, 0.0, 0.0, n, "no differences", level), 1.0) for name in columns
        }
    increases = _error_increases(columns, outcome, seed) / (2 * variance)
    uncorrected = {}
    for name, increase in zip(columns, increases):
        mean, error = float(increase.mean()), float(increase.std(ddof=1)) / math.sqrt(n)
        half = float(stdtrit(n - 1, 0.5 + level / 2)) * error
        p = float(2 * stdtr(n - 1, -abs(mean) / error)) if error > 0 else 1.0
        share = Estimate(
            _clamp(mean),
            _clamp(mean - half),
            _clamp(mean + half),
            n,
            "t over trials, held out of a forest",
            level,
        )
        uncorrected[name] = Importance(share, p)
    p_holm = holm({name: importance.p for name, importance in uncorrected.items()})
    return {name: replace(importance, p_holm=p_holm[name]) for name, importance in uncorrected.items()}


def _error_increases(columns: Mapping[str, Floats], outcome: Floats, seed: int) -> Floats:
    """(settings, n): the mean increase of each trial's squared error with another trial's
    setting."""
    from sklearn.ensemble import RandomForestRegressor

    n, whole = len(outcome), np.hstack(list(columns.values())).astype(np.float32)  # as the forest reads it
    ends = np.cumsum([column.shape[1] for column in columns.values()])
    increases = np.zeros((len(columns), n))
    numbers = np.random.default_rng(seed)
    for repeat in range(REPEATS):
        order = numbers.permutation(n)
        for fold in range(FOLDS):
            held_out = order[fold::FOLDS]
            kept = np.setdiff1d(order, held_out)
            forest = RandomForestRegressor(TREES, random_state=repeat, n_jobs=1).fit(
                whole[kept], outcome[kept]
            )
            plain = (outcome[held_out] - forest.predict(whole[held_out])) ** 2
            changed = np.tile(np.repeat(whole[held_out], n, axis=0), (len(columns), 1, 1))
            for of_one, (name, end) in zip(changed, zip(columns, ends)):
                of_setting = slice(end - columns[name].shape[1], end)
                of_one[:, of_setting] = np.tile(whole[:, of_setting], (len(held_out), 1))
            predicted = forest.predict(changed.reshape(-1, whole.shape[1]))  # calls cost more than rows
            error = (outcome[held_out, None] - predicted.reshape(len(columns), len(held_out), n)) ** 2
            increases[:, held_out] += (error.mean(2) - plain) / REPEATS
    return increases


def _clamp(share: float) -> float:
    return min(1.0, max(0.0, share))


def ranks(values: Floats) -> Floats:
    """The rank of each value, from 0; equal values get the mean of their ranks."""
    from scipy.stats import rankdata

    from_zero: NDArray[np.float64] = rankdata(values) - 1.0
    return from_zero
