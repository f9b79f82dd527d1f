"""Random-effects meta-analysis: one difference over several data sets, each with its own standard error.

The model is value = mean + data set + error (DerSimonian & Laird 1986): the data sets are a sample of those
that could be asked. Each counts alike in the mean: weights by errors that come from few seeds are uncertain
themselves and go with the values, so that the intervals of a weighted mean covered as little as 92 %. Leading
axes, written `…`, are separate analyses.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stresslens.metrics.intervals import Floats

FEWEST_SETS = 3
"""With fewer, the data sets do not show how much data sets vary."""
SMALLEST_VARIANCE = 1e-12
"""Of one data set's value; an error of 0 would give it all the weight."""


@dataclass(frozen=True)
class Pooled:
    """The mean (…) over k data sets. `tau2` is the variance (…) between them; `values` and `variances`
    (…, k) are what was pooled."""

    mean: Floats
    tau2: Floats
    values: Floats
    variances: Floats

    @property
    def sets(self) -> int:
        return int(self.values.shape[-1])

    @property
    def error2(self) -> Floats:
        """The variance (…) of the mean: that of the values, or of their errors alone if that is larger."""
        error2: Floats = np.maximum(self.values.var(-1, ddof=1), self.variances.mean(-1)) / self.sets
        return error2

    def margin(self, level: float = 0.95) -> Floats:
        """Half the width (…) of the interval of the mean, with t of k - 1 degrees of freedom. At 92 % and
        above it also covers where the errors of the data sets are unlike (Bakirov & Székely 2006)."""
        from scipy.special import stdtrit

        margin: Floats = stdtrit(self.sets - 1, 0.5 + level / 2) * np.sqrt(self.error2)
        return margin

    @property
    def p(self) -> Floats:
        """Two-sided p (…) for a mean of zero."""
        from scipy.special import stdtr

        p: Floats = 2 * stdtr(self.sets - 1, -np.abs(self.mean) / np.sqrt(self.error2))
        return p

    def new_margin(self, level: float = 0.95) -> Floats:
        """Half the width (…) of the interval of the true difference on a new data set: the wider of two.

        That of Higgins, Thompson & Spiegelhalter (2009), with t of k - 2 degrees of freedom, covers as
        little as 87 % where the data sets differ about as much as chance makes them. The other is Student's
        t over the values, as if all of their spread were of the data sets.
        """
        from scipy.special import stdtrit

        tail, k = 0.5 + level / 2, self.sets
        model = stdtrit(max(k - 2, 1), tail) * np.sqrt(self.tau2 + self.error2)
        plain = stdtrit(k - 1, tail) * self.values.std(-1, ddof=1) * np.sqrt(1 + 1 / k)
        margin: Floats = np.maximum(model, plain)
        return margin

    @property
    def shrunken(self) -> Floats:
        """(…, k) the estimates of each data set, drawn to the mean by as much as they are uncertain: the
        best linear unbiased prediction."""
        own = self.tau2[..., None] / (self.tau2[..., None] + self.variances)
        shrunken: Floats = self.mean[..., None] + own * (self.values - self.mean[..., None])
        return shrunken

    @property
    def q(self) -> Floats:
        """Cochran's Q (…)."""
        return _generalised_q(self.values, self.variances, np.zeros_like(self.tau2))

    @property
    def q_p(self) -> Floats:
        """The p (…) of Q for equal differences on all data sets."""
        from scipy.special import chdtrc

        p: Floats = chdtrc(self.sets - 1, self.q)
        return p

    @property
    def i2(self) -> Floats:
        """I² (…): the share of the spread that chance does not explain (Higgins & Thompson 2002)."""
        q = self.q
        share: Floats = np.where(q > 0, np.maximum(0, q - (self.sets - 1)) / np.where(q > 0, q, 1), 0.0)
        return share


def pooled_effects(values: Floats, variances: Floats) -> Pooled:
    """Pool values (…, k), k at least 2, with variances (…, k), by the variance between data sets of Paule &
    Mandel (1982): the one at which the generalised Q is k - 1, or 0."""
    variances = np.maximum(variances, SMALLEST_VARIANCE)
    degrees = values.shape[-1] - 1
    low = np.zeros(values.shape[:-1])
    high = np.square(np.ptp(values, axis=-1)) * values.shape[-1] + variances.max(-1)  # its Q is below k - 1
    for _ in range(100):
        middle = (low + high) / 2
        spread = _generalised_q(values, variances, middle) > degrees
        low, high = np.where(spread, middle, low), np.where(spread, high, middle)
    tau2 = np.where(_generalised_q(values, variances, np.zeros_like(low)) > degrees, (low + high) / 2, 0.0)
    return Pooled(values.mean(-1), tau2, values, variances)


def _generalised_q(values: Floats, variances: Floats, tau2: Floats) -> Floats:
    weights = 1 / (variances + tau2[..., None])
    mean = (weights * values).sum(-1, keepdims=True) / weights.sum(-1, keepdims=True)
    q: Floats = (weights * (values - mean) ** 2).sum(-1)
    return q
