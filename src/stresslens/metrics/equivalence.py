"""One-sided p-values from an interval's ends: is a difference below a margin, above another, or within both?

Schuirmann's (1987) two one-sided tests: two quantities are equivalent where the interval of level 1 - 2α lies
within ± margin.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from stresslens.metrics.intervals import Floats

ALPHA = 0.025
"""Of each one-sided test: the 95 % interval, as everywhere in a report, has to lie inside."""
SMALLEST_P = 1e-15
STEPS = 60

Ends = Callable[[Floats], tuple[Floats, Floats]]
"""The two ends (…) of an interval, each of its level (…)."""


def room(images: float, p: Floats | float) -> Floats:
    """(…) how much further each end of the interval reaches in a test of sameness.

    Where few images differ, their number is skewed, and an interval that is symmetric around it ends too
    early on the side of the images that were not seen: none that differs, of n, leaves up to 3 / n of them
    possible. (z² + 2) / 3 images, the first term of the Cornish-Fisher expansion of a Poisson count's
    upper bound, are at least the missing ones.
    """
    from scipy.special import ndtri

    reach: Floats = (np.square(ndtri(p)) + 2) / (3 * images)
    return reach


def widened(ends: Ends, images: float) -> Ends:
    """The ends with `room`, within [-1, 1]."""

    def wider(level: Floats) -> tuple[Floats, Floats]:
        (low, high), more = ends(level), room(images, (1 - np.asarray(level)) / 2)
        return np.maximum(low - more, -1.0), np.minimum(high + more, 1.0)

    return wider


def p_above(ends: Ends, bound: float, shape: tuple[int, ...] = ()) -> Floats:
    """One-sided p (…) that the difference is above `bound`: half of 1 - level where the lower end reaches it.

    1 where even the middle of the interval is not above it.
    """
    return _reached(lambda p: ends(1 - 2 * p)[0] > bound, shape)


def p_below(ends: Ends, bound: float, shape: tuple[int, ...] = ()) -> Floats:
    """One-sided p (…) that the difference is below `bound`."""
    return _reached(lambda p: ends(1 - 2 * p)[1] < bound, shape)


def p_within(ends: Ends, margin: float, shape: tuple[int, ...] = ()) -> Floats:
    """The p (…) of Schuirmann's two one-sided tests that the difference is within ± `margin`: the larger of
    the two."""
    return np.maximum(p_above(ends, -margin, shape), p_below(ends, margin, shape))


def _reached(shown: Callable[[Floats], np.ndarray], shape: tuple[int, ...]) -> Floats:
    """The smallest p (…), at least `SMALLEST_P`, at which something is shown; 1 if it is above a half."""
    low, high = np.full(shape, np.log(SMALLEST_P)), np.full(shape, np.log(0.5))
    never = ~np.asarray(shown(np.exp(high)))
    for _ in range(STEPS):
        middle = (low + high) / 2
        enough = shown(np.exp(middle))
        low, high = np.where(enough, low, middle), np.where(enough, middle, high)
    p: Floats = np.where(never, 1.0, np.exp(high))
    return p
