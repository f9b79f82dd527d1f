"""Tests of paired differences: McNemar, corrected resampled t test, Holm's correction."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import TypeVar

import numpy as np

from stresslens.metrics.intervals import Floats

Pair = TypeVar("Pair", bound=Hashable)


def mcnemar(only_a: int, only_b: int) -> float:
    """McNemar's exact two-sided p (binomial).

    The counts are the images that only a, and only b, classifies correctly.
    """
    from scipy.stats import binomtest

    return float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0


def resampled(
    values: Floats, ratio: float, *, grain: float = 0.0, level: float = 0.95
) -> tuple[float, float]:
    """The corrected resampled t test (Nadeau & Bengio 2003): half the interval's width, and p.

    `values` (J,), J at least 2, come from J divisions of the same images into training and test.
    The training sets overlap, so the variance is s² (1/J + ratio), where `ratio` is test / training
    images, with J - 1 degrees of freedom. If the values move in steps of `grain`, half a step in
    one of them is added to s², because values that are equal may be so by chance.
    """
    from scipy.special import stdtr, stdtrit

    mean, error = float(values.mean()), _resampled_error(values, ratio, grain)
    if error == 0:
        return 0.0, 1.0 if mean == 0 else 0.0
    degrees = len(values) - 1
    return float(stdtrit(degrees, 0.5 + level / 2)) * error, float(2 * stdtr(degrees, -abs(mean) / error))


def resampled_reach(
    values: Floats, ratio: float, *, grain: float = 0.0, level: float = 0.95, power: float = 0.8
) -> float:
    """The smallest difference that `resampled` finds with this power.

    The variance of the values is taken as the true one.
    """
    from scipy.special import ndtri, stdtrit

    return float(stdtrit(len(values) - 1, 0.5 + level / 2) + ndtri(power)) * _resampled_error(
        values, ratio, grain
    )


def holm(p: Mapping[Pair, float]) -> dict[Pair, float]:
    """Holm's (1979) step-down correction of a family of p-values."""
    adjusted: dict[Pair, float] = {}
    highest = 0.0
    for rank, pair in enumerate(sorted(p, key=lambda pair: p[pair])):
        highest = max(highest, min(1.0, p[pair] * (len(p) - rank)))
        adjusted[pair] = highest
    return adjusted


def _resampled_error(values: Floats, ratio: float, grain: float) -> float:
    variance = (
        float(values.var(ddof=1)) if np.ptp(values) else 0.0
    )  # the variance of equal values is rounding
    return math.sqrt((variance + (grain / 2) ** 2 / len(values)) * (1 / len(values) + ratio))
