"""Intervals of proportions and of means, as pure functions of arrays."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from stresslens.core.types import Estimate

Floats = NDArray[np.float64]

RESAMPLES = 1000
MANY = 5000


def wilson(successes: int, n: int, *, level: float = 0.95) -> Estimate:
    """A proportion with Wilson's (1927) score interval; without images, NaN in [0, 1]."""
    from scipy.special import ndtri

    if n == 0:
        return Estimate(math.nan, 0.0, 1.0, 0, "Wilson", level)
    z = float(ndtri(0.5 + level / 2))
    p = successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return Estimate(p, min(p, max(0.0, centre - half)), max(p, min(1.0, centre + half)), n, "Wilson", level)


def bootstrap_mean(values: Floats, *, level: float = 0.95, seed: int = 0) -> Estimate:
    """The mean of one value per image, with the percentile bootstrap over images (Efron & Tibshirani 1993).

    From `MANY` images on the normal interval, which it then equals to the digits shown.
    """
    n = len(values)
    if n >= MANY:
        from scipy.special import ndtri

        mean, half = float(values.mean()), float(ndtri(0.5 + level / 2)) * float(values.std(ddof=1)) / math.sqrt(n)
        return Estimate(mean, mean - half, mean + half, n, "normal", level)
    counts = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=RESAMPLES)
    means = counts @ values / n
    low, high = np.quantile(means, [0.5 - level / 2, 0.5 + level / 2])
    return Estimate(float(values.mean()), float(low), float(high), n, "bootstrap", level)


def bootstrap_confusion(
    confusion: NDArray[np.int64], statistic: Callable[[NDArray[np.int64]], Floats], *, level: float = 0.95, seed: int = 0
) -> list[Estimate]:
    """Statistics of a confusion matrix (…, K, K) → (…, m), with the percentile bootstrap over its images.

    Resampling n images with replacement is drawing the matrix anew from a multinomial, so no image is looked at again.
    """
    n = int(confusion.sum())
    random, shares = np.random.default_rng(seed), confusion.ravel() / n
    at_once = max(1, min(RESAMPLES, 10**7 // confusion.size))  # 80 MB
    sizes = [min(at_once, RESAMPLES - start) for start in range(0, RESAMPLES, at_once)]
    statistics = np.concatenate([statistic(random.multinomial(n, shares, size=k).reshape(-1, *confusion.shape)) for k in sizes])
    low, high = np.nanquantile(statistics, [0.5 - level / 2, 0.5 + level / 2], axis=0)
    value = statistic(confusion)
    return [
        Estimate(float(v), min(float(v), float(a)), max(float(v), float(b)), n, "bootstrap", level)
        for v, a, b in zip(value, low, high)
    ]


def t_mean(values: Floats, *, level: float = 0.95) -> Estimate:
    """The mean over seeds with Student's t interval; a single seed has no interval."""
    from scipy.special import stdtrit

    n, mean = len(values), float(values.mean())
    if n < 2:
        return Estimate(mean, math.nan, math.nan, n, "t", level, "seeds")
    half = float(stdtrit(n - 1, 0.5 + level / 2)) * float(values.std(ddof=1)) / math.sqrt(n)
    return Estimate(mean, mean - half, mean + half, n, "t", level, "seeds")
