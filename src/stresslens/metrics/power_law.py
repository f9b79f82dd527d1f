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
    _covariances: tuple[Floats, ...]
    """(2, 2) covariances of the intercept (at the centre of log size) and the slope, one for each
    assumption on how the points depend on each other."""
    _quantile: float

    def error(self, size: float) -> Estimate:
        """The error at a size, averaged over images and seeds, with its interval.

        Outside the measured sizes it is an extrapolation. A single run, measured on a sample of
        images, varies more than this mean.
        """
        at = np.array([1.0, math.log(size) - self._centre])
        value = math.log(self.scale) - self.exponent.value * math.log(size)
        half = _half(at, self._covariances, self._quantile)
        return Estimate(
            math.exp(value), math.exp(value - half), math.exp(value + half), self.exponent.n, "power law"
        )

    @property
    def tenfold(self) -> Estimate:
        """The factor by which ten times the data multiplies the error."""
        e = self.exponent
        return Estimate(10**-e.value, 10**-e.high, 10**-e.low, e.n, e.method)


def power_law(
    sizes: Sequence[float], errors: Sequence[Estimate], *, correlation: Floats | None = None
) -> PowerLaw | None:
    """Fits a power law to error rates by weighted least squares in log–log.

    Each point is weighted by its own interval (Hestness et al. 2017; Cortes et al. 1993). Points
    measured on the same test images err together: `correlation` (S, S) is that of the S errors.
    Without it any correlation from none to full may hold, and the wider interval of the two ends is
    taken (between them the variance changes linearly, if all pairs are correlated alike). If the
    points deviate from the line by more than their intervals explain, the intervals are widened
    until they do (Birge's ratio), and Student's t replaces the normal distribution. Points with
    error 0 are left out. Returns None with fewer than `FEWEST` points, or if an interval is
    unknown.
    """
    from scipy import stats

    kept = [k for k, e in enumerate(errors) if e.value > 0]
    logs, values = (np.log([of[k] for k in kept]) for of in (sizes, [e.value for e in errors]))
    bounds = [(errors[k].low, errors[k].high) for k in kept]
    if len(set(logs)) < FEWEST or not all(math.isfinite(high - low) for low, high in bounds):
        return None
    z = float(stats.norm.ppf(0.975))
    spread = np.array([max(high - low, 1e-12) for low, high in bounds]) / (2 * z * np.exp(values))
    weights = 1 / spread**2
    centre = float(np.average(logs, weights=weights))
    design = np.stack([np.ones_like(logs), logs - centre], 1)
    solve = np.linalg.inv(design.T @ (weights[:, None] * design)) @ design.T * weights  # (2, S)
    intercept, slope = solve @ values
    together = np.eye(len(kept)) if correlation is None else correlation[np.ix_(kept, kept)]
    covariance = spread[:, None] * spread * together
    chi2, free = _misfit(values, design, solve, covariance), len(kept) - 2
    birge = max(1.0, chi2 / free)
    quantile = z if birge == 1.0 else float(stats.t.ppf(0.975, free))
    covariances = [birge * solve @ covariance @ solve.T]
    if correlation is None:
        common = solve @ spread
        covariances.append(common[:, None] * common)
    half = _half(np.array([0.0, 1.0]), covariances, quantile)
    exponent = Estimate(-slope, -slope - half, -slope + half, len(kept), "weighted least squares in log–log")
    p = float(stats.chi2.sf(chi2, free))
    return PowerLaw(exponent, math.exp(intercept - slope * centre), p, centre, tuple(covariances), quantile)


def _half(at: Floats, covariances: Sequence[Floats], quantile: float) -> float:
    return quantile * math.sqrt(max(0.0, *(float(at @ covariance @ at) for covariance in covariances)))


def _misfit(values: Floats, design: Floats, solve: Floats, covariance: Floats) -> float:
    """Chi-squared of the points' deviations from the line, with S - 2 degrees of freedom."""
    residual = np.eye(len(values)) - design @ solve
    deviation, spread = residual @ values, residual @ covariance @ residual.T
    return float(deviation @ np.linalg.pinv(spread, rcond=1e-9, hermitian=True) @ deviation)
