"""Power law of the error against the training-set size (learning curve), fitted in log–log."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stresslens.core.types import Estimate
from stresslens.metrics.intervals import Floats

FEWEST = 3
"""Fewest sizes that a law is fitted to; two sizes fit any law."""


@dataclass(frozen=True)
class PowerLaw:
    """error ≈ scale · size^−exponent.

    `p` is the probability that the points deviate so far from the line by their own uncertainty.
    """

    exponent: Estimate
    scale: float
    p: float
    _centre: float
    _covariance: Floats
    """(2, 2) covariance of the intercept (at the centre of log size) and the slope."""
    _quantile: float

    def error(self, size: float) -> Estimate:
        """The error at a size, with its interval; outside the measured sizes it is an
        extrapolation."""
        at = math.log(size) - self._centre
        value = math.log(self.scale) - self.exponent.value * math.log(size)
        half = self._quantile * math.sqrt(float(np.array([1.0, at]) @ self._covariance @ np.array([1.0, at])))
        return Estimate(
            math.exp(value), math.exp(value - half), math.exp(value + half), self.exponent.n, "power law"
        )

    @property
    def tenfold(self) -> Estimate:
        """The factor by which ten times the data multiplies the error."""
        e = self.exponent
        return Estimate(10**-e.value, 10**-e.high, 10**-e.low, e.n, e.method)


def power_law(sizes: Sequence[float], errors: Sequence[Estimate]) -> PowerLaw | None:
    """Fits a power law to error rates by weighted least squares in log–log.

    Each point is weighted by its own interval (Hestness et al. 2017; Cortes et al. 1993). If the
    points deviate from the line by more than their intervals explain, the intervals are widened
    until they do (Birge's ratio), and Student's t replaces the normal distribution. Points with
    error 0 are left out. Returns None with fewer than `FEWEST` points, or if an interval is
    unknown.
    """
    from scipy import stats

    kept = [(n, e) for n, e in zip(sizes, errors) if e.value > 0]
    if (
        len(kept) < FEWEST
        or len({n for n, _ in kept}) < FEWEST
        or not all(math.isfinite(e.high - e.low) for _, e in kept)
    ):
        return None
    z = float(stats.norm.ppf(0.975))
    logs = np.log([n for n, _ in kept])
    values = np.log([e.value for _, e in kept])
    spread = np.array([max(e.high - e.low, 1e-12) / (2 * z * e.value) for _, e in kept])
    weights = 1 / spread**2
    centre = float(np.average(logs, weights=weights))
    design = np.stack([np.ones_like(logs), logs - centre], 1)
    covariance = np.linalg.inv(design.T @ (weights[:, None] * design))
    intercept, slope = covariance @ design.T @ (weights * values)
    chi2 = float((weights * (values - design @ np.array([intercept, slope])) ** 2).sum())
    free = len(kept) - 2
    birge = max(1.0, chi2 / free)
    quantile = z if birge == 1.0 else float(stats.t.ppf(0.975, free))
    half = quantile * math.sqrt(birge * covariance[1, 1])
    exponent = Estimate(-slope, -slope - half, -slope + half, len(kept), "weighted least squares in log–log")
    p = float(stats.chi2.sf(chi2, free))
    return PowerLaw(exponent, math.exp(intercept - slope * centre), p, centre, birge * covariance, quantile)
