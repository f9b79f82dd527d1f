"""Confidence intervals of proportions and means: Wilson, Gaffke, Student's t, influence functions.

A model that is nearly always right is the hard case: the errors that decide its score are few, and
the worst of them is probably not in the sample. Each interval here leaves room for one more image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from stresslens.core.types import Estimate

Floats = NDArray[np.float64]

TINY = 1e-12

RESAMPLES = 1000
MANY = 2000
"""Images that get their own random weights; those nearest to the median of more are drawn
together."""
DECIDING = 10
"""With fewer images (squared sum of squares over sum of fourth powers), a variance is a poor
estimate of the population's."""
UNSEEN = 2.0
"""How many times as large as the largest influence that of an image is taken to be that was not
seen."""


def wilson(successes: float, n: int, *, level: float = 0.95) -> Estimate:
    """A proportion with Wilson's (1927) score interval; without images, NaN in [0, 1].

    Wilson's interval alone covers 84 % where about 0.2 errors are expected (Brown, Cai & DasGupta
    2001, section 4). Therefore no bound is inside the exact one-sided bound of the same level
    (Clopper & Pearson 1934), which only matters for fewer than ten errors.
    """
    if n == 0:
        return Estimate(math.nan, 0.0, 1.0, 0, "Wilson", level)
    low, high = wilson_bounds(np.array(successes / n), np.array(float(n)), level=level)
    return Estimate(successes / n, float(low), float(high), n, "Wilson", level)


def wilson_bounds(p: Floats, n: Floats, *, level: float = 0.95) -> tuple[Floats, Floats]:
    """The bounds (…) of `wilson` for shares p (…) of n (…) trials, which need not be whole."""
    from scipy.special import betaincinv, ndtri

    z2 = float(ndtri(0.5 + level / 2)) ** 2
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = np.sqrt(z2 * p * (1 - p) / n + (z2 / (2 * n)) ** 2) / (1 + z2 / n)
    hits, misses = p * n, (1 - p) * n
    exact_low = np.where(hits > 0, betaincinv(np.maximum(hits, TINY), misses + 1, 1 - level), 0.0)
    exact_high = np.where(misses > 0, betaincinv(hits + 1, np.maximum(misses, TINY), level), 1.0)
    low, high = np.minimum(centre - half, exact_low), np.maximum(centre + half, exact_high)
    return np.clip(low, 0, p), np.clip(high, p, 1)


def newcombe(one: Estimate, other: Estimate) -> tuple[float, float]:
    """The bounds of `one` - `other`, two independent proportions with their `wilson` intervals
    (Newcombe 1998, method 10)."""
    value = one.value - other.value
    down = math.hypot(one.value - one.low, other.high - other.value)
    up = math.hypot(one.high - one.value, other.value - other.low)
    return value - down, value + up


def difference_of_proportions(first: Estimate, second: Estimate) -> Estimate:
    """The second of two independent proportions minus the first, with the interval of `newcombe`."""
    low, high = newcombe(second, first)
    value = second.value - first.value
    return Estimate(value, max(-1.0, low), min(1.0, high), first.n + second.n, "Newcombe", second.level)


def order_median(values: Floats, *, level: float = 0.95) -> Estimate:
    """The median of values, which may be infinite, with the interval between two of them.

    No assumption on their distribution: the number of values below the median is binomial, and the
    bounds are the closest values that leave at most (1 - level)/2 on each side (David & Nagaraja 2003,
    section 7.1). A bound is infinite where too few values are there. Without values, NaN.
    """
    from scipy.special import bdtr

    n, ordered = len(values), np.sort(np.asarray(values, dtype=np.float64))
    if n == 0:
        return Estimate(math.nan, -math.inf, math.inf, 0, "order statistics", level)
    shares = bdtr(np.arange(n + 1), n, 0.5)  # of at most so many values below the median
    below = int(np.searchsorted(shares, (1 - level) / 2))
    low, high = (ordered[below - 1], ordered[n - below]) if below else (-math.inf, math.inf)
    middle = ordered[(n - 1) // 2], ordered[n // 2]
    value = middle[0] if middle[0] == middle[1] else (middle[0] + middle[1]) / 2
    return Estimate(float(value), float(low), float(high), n, "order statistics", level)


def balanced(parts: Sequence[Estimate]) -> Estimate:
    """The mean of independent proportions, such as the recalls of the classes.

    Proportions without images (NaN) are left out. Each bound is that of a beta distribution with
    the mean and the variance of the estimate, after one more failure (or success) was added where
    it weighs most. For one proportion this is Clopper & Pearson's interval; Fay & Feuer (1997) do
    the same for Poisson counts, with a gamma distribution.
    """
    known = [part for part in parts if part.n]
    if not known:
        return Estimate(math.nan, 0.0, 1.0, 0, "beta, one more error")
    share, n = (np.array([getattr(part, key) for part in known], float) for key in ("value", "n"))
    level, value = known[0].level, float(share.mean())
    low, high = 1 - _balanced_bound(1 - share, n, level), _balanced_bound(share, n, level)
    low, high = min(low, value), max(high, value)
    return Estimate(value, low, high, int(n.sum()), "beta, one more error", level)


def _balanced_bound(share: Floats, n: Floats, level: float) -> float:
    """The upper bound of the mean of `share` (K,), measured on n (K,) images each."""
    from scipy.special import betaincinv

    pooled = float(share.mean())
    own = np.where(n > 1, share * (1 - share) / np.maximum(n - 1, 1), pooled * (1 - pooled))
    heaviest = int(n.argmin())
    hits, misses = share[heaviest] * n[heaviest] + 1, (1 - share[heaviest]) * n[heaviest]
    means = share.copy()
    means[heaviest] = hits / (hits + misses)
    own[heaviest] = hits * misses / ((hits + misses) ** 2 * (hits + misses + 1))
    mean, variance = float(means.mean()), float(own.sum()) / len(n) ** 2
    if mean >= 1 - TINY:
        return 1.0
    trials = mean * (1 - mean) / variance - 1 if variance > 0 else math.inf
    if not math.isfinite(trials):
        return mean
    return float(betaincinv(max(mean * trials, TINY), max((1 - mean) * trials, TINY), 0.5 + level / 2))


def logit_normal(value: float, influence: Floats, *, level: float = 0.95) -> Estimate:
    """A statistic strictly between 0 and 1, with a normal interval on the logit scale.

    The interval therefore stays between 0 and 1. `influence` (N,) is the influence function of each
    image, with mean 0; the variance is Σ influence² / N² (Hampel 1974). Where fewer than `DECIDING`
    images make up the variance, a bound is that of `mean_bounds` if this is wider, with one more
    image of `UNSEEN` times the largest influence.
    """
    from scipy.special import expit, logit, ndtri

    half = (
        float(ndtri(0.5 + level / 2))
        * float(np.linalg.norm(influence))
        / (len(influence) * value * (1 - value))
    )
    low, high = (float(expit(logit(value) + step)) for step in (-half, half))
    squares = np.square(influence)
    if squares.sum() ** 2 < DECIDING * np.square(squares).sum():
        ends = UNSEEN * float(influence.min()), UNSEEN * float(influence.max())
        below, above = mean_bounds(influence, ends, level=level)
        low, high = max(0.0, min(low, value + below)), min(1.0, max(high, value + above))
    return Estimate(value, min(low, value), max(high, value), len(influence), "influence function", level)


def bounded_mean(
    values: Floats, bounds: tuple[float, float], *, level: float = 0.95, seed: int = 0
) -> Estimate:
    """The mean of one value per image, each within `bounds`, with `mean_bounds`; NaN without
    images.

    A bound that is infinite makes that end of the interval infinite: it cannot be known.
    """
    n = len(values)
    if n == 0:
        return Estimate(math.nan, math.nan, math.nan, 0, "Gaffke", level)
    value = float(values.mean())
    low, high = mean_bounds(values, bounds, level=level, seed=seed)
    return Estimate(value, min(low, value), max(high, value), n, "Gaffke", level)


def mean_bounds(
    values: Floats, bounds: tuple[float, float], *, level: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """The bounds of the mean of values (N,), N at least 1, by Gaffke (2005).

    The images get random weights (Dirichlet, as in Rubin's Bayesian bootstrap), and one more image
    that was not seen has the lowest value possible, or the highest. For values of 0 and 1 the
    bounds are Clopper & Pearson's; for other bounded values none is known to cover less often than
    it says (Learned-Miller & Thomas 2019).
    """
    # sorted, so that nothing depends on the order of the images
    near, far = _middle(np.sort(values))
    weights, of_far = _exponentials(len(far), seed)
    middle = _normals(len(near), seed)
    total, square, count = float(near.sum()), float(np.square(near).sum()), len(near)
    share = total / count if count else 0.0
    spread = math.sqrt(max(square - total * share, 0.0))
    # Σ e and Σ e·v of the middle's exponential weights e, which are nearly normal
    mass = np.maximum(count + math.sqrt(count) * middle[:, 0], 0.0)
    sums = weights[:, :-1] @ far + share * mass + spread * middle[:, 1]
    unseen, mass = weights[:, -1], mass + of_far
    low, high = (
        end if math.isinf(end) else float(np.quantile((sums + unseen * end) / mass, quantile))
        for end, quantile in zip(bounds, (0.5 - level / 2, 0.5 + level / 2))
    )
    return low, high


def _middle(ordered: Floats) -> tuple[Floats, Floats]:
    """The values around the median that are more than `MANY`, and the others, in ascending
    order."""
    if len(ordered) <= MANY:
        return ordered[:0], ordered
    distance = np.abs(ordered - ordered[len(ordered) // 2])
    far = np.zeros(len(ordered), bool)
    far[np.argpartition(distance, -MANY)[-MANY:]] = True
    return ordered[~far], ordered[far]


@lru_cache(maxsize=4)
def _exponentials(n: int, seed: int) -> tuple[Floats, Floats]:
    """(RESAMPLES, n + 1) weights and their sums (RESAMPLES,); the same for every score of a split.

    Those of the image that was not seen are stratified: alone they make the interval where all
    values are equal.
    """
    random = np.random.default_rng(seed)
    weights = random.standard_exponential((RESAMPLES, n + 1))
    weights[:, -1] = -np.log1p(-(random.permutation(RESAMPLES) + 0.5) / RESAMPLES)
    return weights, weights.sum(1)


@lru_cache(maxsize=4)
def _normals(n: int, seed: int) -> Floats:
    """(RESAMPLES, 2) normal values for n values around the median."""
    return np.random.default_rng([seed, n]).standard_normal((RESAMPLES, 2))


def t_mean(values: Floats, *, level: float = 0.95) -> Estimate:
    """The mean over seeds, with Student's t interval; a single seed has no interval."""
    from scipy.special import stdtrit

    n, mean = len(values), float(values.mean())
    if n < 2:
        return Estimate(mean, math.nan, math.nan, n, "t", level, "seeds")
    half = float(stdtrit(n - 1, 0.5 + level / 2)) * float(values.std(ddof=1)) / math.sqrt(n)
    return Estimate(mean, mean - half, mean + half, n, "t", level, "seeds")
