"""Confidence intervals of proportions and means: Wilson, bootstrap, Student's t, influence
functions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from stresslens.core.types import Estimate

Floats = NDArray[np.float64]

RESAMPLES = 1000
MANY = 5000


def wilson(successes: float, n: int, *, level: float = 0.95) -> Estimate:
    """A proportion with Wilson's (1927) score interval; without images, NaN in [0, 1]."""
    from scipy.special import ndtri

    if n == 0:
        return Estimate(math.nan, 0.0, 1.0, 0, "Wilson", level)
    z = float(ndtri(0.5 + level / 2))
    p = successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return Estimate(p, min(p, max(0.0, centre - half)), max(p, min(1.0, centre + half)), n, "Wilson", level)


def balanced(parts: Sequence[Estimate]) -> Estimate:
    """The mean of independent proportions, such as the recalls of the classes.

    Proportions without images (NaN) are left out. Their intervals are combined by the method of
    variance estimates recovery (MOVER; Zou & Donner 2008), so that a mean of 1 still has an
    interval.
    """
    known = [part for part in parts if part.n]
    if not known:
        return Estimate(math.nan, 0.0, 1.0, 0, "MOVER")
    value = sum(part.value for part in known) / len(known)
    below = math.hypot(*(part.value - part.low for part in known)) / len(known)
    above = math.hypot(*(part.high - part.value for part in known)) / len(known)
    n = sum(part.n for part in known)
    return Estimate(value, max(0.0, value - below), min(1.0, value + above), n, "MOVER", known[0].level)


def logit_normal(value: float, influence: Floats, *, level: float = 0.95) -> Estimate:
    """A statistic strictly between 0 and 1, with a normal interval on the logit scale.

    The interval therefore stays between 0 and 1. `influence` (N,) is the influence function of each
    image, with mean 0; the variance is Σ influence² / N² (Hampel 1974).
    """
    from scipy.special import expit, logit, ndtri

    half = (
        float(ndtri(0.5 + level / 2))
        * float(np.linalg.norm(influence))
        / (len(influence) * value * (1 - value))
    )
    low, high = (float(expit(logit(value) + step)) for step in (-half, half))
    return Estimate(value, min(low, value), max(high, value), len(influence), "influence function", level)


@lru_cache(maxsize=4)
def _resampled(n: int, seed: int) -> Floats:
    """(RESAMPLES, n) how often each image is drawn; the same for every score of a split."""
    return np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=RESAMPLES).astype(float)


def bootstrap_mean(values: Floats, *, level: float = 0.95, seed: int = 0) -> Estimate:
    """The mean of one value per image, with the percentile bootstrap over images; NaN without
    images.

    See Efron & Tibshirani (1993). From `MANY` images on, the normal interval is used; it then is
    the same to the digits that are shown.
    """
    n = len(values)
    if n == 0:
        return Estimate(math.nan, math.nan, math.nan, 0, "bootstrap", level)
    if n >= MANY:
        from scipy.special import ndtri

        mean = float(values.mean())
        half = float(ndtri(0.5 + level / 2)) * float(values.std(ddof=1)) / math.sqrt(n)
        return Estimate(mean, mean - half, mean + half, n, "normal", level)
    means = _resampled(n, seed) @ values / n
    low, high = np.quantile(means, [0.5 - level / 2, 0.5 + level / 2])
    return Estimate(float(values.mean()), float(low), float(high), n, "bootstrap", level)


def t_mean(values: Floats, *, level: float = 0.95) -> Estimate:
    """The mean over seeds, with Student's t interval; a single seed has no interval."""
    from scipy.special import stdtrit

    n, mean = len(values), float(values.mean())
    if n < 2:
        return Estimate(mean, math.nan, math.nan, n, "t", level, "seeds")
    half = float(stdtrit(n - 1, 0.5 + level / 2)) * float(values.std(ddof=1)) / math.sqrt(n)
    return Estimate(mean, mean - half, mean + half, n, "t", level, "seeds")
