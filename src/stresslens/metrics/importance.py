"""How much of the differences between trials each of their settings explains, told on trials that
were not learned from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stresslens.core.types import Estimate
from stresslens.metrics.intervals import Floats
from stresslens.metrics.paired import holm

FOLDS, REPEATS, TREES = 5, 5, 60


@dataclass(frozen=True)
class Importance:
    """A setting's share of the differences, with the p of its being none, before and after Holm
    over the settings."""

    share: Estimate
    p: float
    p_holm: float = 1.0

    @property
    def real(self) -> bool:
        return self.p_holm < 1 - self.share.level and self.share.low > 0


def importances(
    columns: Mapping[str, Floats], outcome: Floats, *, level: float = 0.95, seed: int = 0
) -> dict[str, Importance]:
    """For each setting, written as columns (n, k), its share of the variance of `outcome` (n,),
    interactions included.

    A forest (Breiman 2001) that has not seen a trial predicts it as it is, and with the setting as
    each of the n trials has it; the rise of the squared error over twice the variance is the total
    effect of Sobol (1993; Jansen 1999), as far as the forest can predict: too few trials make it
    too small. Mean and Student's t over the trials (Watson & Wright 2021). Five times five folds; n
    at least `FOLDS`. benchmarks/importance.py simulates how often it errs.
    """
    from scipy.special import stdtr, stdtrit

    n, variance = len(outcome), float(outcome.var())
    if variance == 0:
        return {
            name: Importance(Estimate(0.0, 0.0, 0.0, n, "no differences", level), 1.0) for name in columns
        }
    rises = _rises(columns, outcome, seed) / (2 * variance)
    found = {}
    for name, rise in zip(columns, rises):
        mean, error = float(rise.mean()), float(rise.std(ddof=1)) / math.sqrt(n)
        half = float(stdtrit(n - 1, 0.5 + level / 2)) * error
        p = float(2 * stdtr(n - 1, -abs(mean) / error)) if error > 0 else 1.0
        share = Estimate(
            _within(mean),
            _within(mean - half),
            _within(mean + half),
            n,
            "t over trials, held out of a forest",
            level,
        )
        found[name] = Importance(share, p)
    corrected = holm({name: each.p for name, each in found.items()})
    return {name: Importance(each.share, each.p, corrected[name]) for name, each in found.items()}


def _rises(columns: Mapping[str, Floats], outcome: Floats, seed: int) -> Floats:
    """(settings, n): how much each trial's squared error rises when a setting is that of another
    trial, on average."""
    from sklearn.ensemble import RandomForestRegressor

    n, whole = len(outcome), np.hstack(list(columns.values()))
    ends = np.cumsum([column.shape[1] for column in columns.values()])
    rises = np.zeros((len(columns), n))
    numbers = np.random.default_rng(seed)
    for repeat in range(REPEATS):
        order = numbers.permutation(n)
        for fold in range(FOLDS):
            out = order[fold::FOLDS]
            kept = np.setdiff1d(order, out)
            forest = RandomForestRegressor(TREES, random_state=repeat, n_jobs=1).fit(
                whole[kept], outcome[kept]
            )
            plain = (outcome[out] - forest.predict(whole[out])) ** 2
            for place, (name, end) in enumerate(zip(columns, ends)):
                own = slice(end - columns[name].shape[1], end)
                changed = np.repeat(whole[out], n, axis=0)
                changed[:, own] = np.tile(whole[:, own], (len(out), 1))
                error = (outcome[out, None] - forest.predict(changed).reshape(len(out), n)) ** 2
                rises[place, out] += (error.mean(1) - plain) / REPEATS
    return rises


def _within(share: float) -> float:
    return min(1.0, max(0.0, share))


def ranks(values: Floats) -> Floats:
    """The place of each value in order, from 0, equals sharing their mean place."""
    from scipy.stats import rankdata

    places: NDArray[np.float64] = rankdata(values) - 1.0
    return places
