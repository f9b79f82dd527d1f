"""The range of independent standard normal values."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

WIDEST = 40.0
"""A range that no number of values reaches."""


@lru_cache(maxsize=64)
def range_quantile(level: float, size: int) -> float:
    """What the range of `size` independent standard normal values, at least two, stays below with
    probability `level`, in (0, 1).

    It is scipy's `studentized_range.ppf(level, size, inf)`, without the import of scipy.stats. The
    distribution is an integral over the least value z (Tukey 1953): n ∫ φ(z) (Φ(z + w) - Φ(z))^(n-1) dz.
    """
    from scipy.optimize import brentq
    from scipy.special import ndtr

    least, step = np.linspace(-10, 10, 401, retstep=True)  # even steps are exact to rounding here
    density = step * size * np.exp(-np.square(least) / 2) / np.sqrt(2 * np.pi)

    def excess(width: float) -> float:
        return float(density @ (ndtr(least + width) - ndtr(least)) ** (size - 1)) - level

    return float(brentq(excess, 0.0, WIDEST))
