"""The mean of paired differences of values of any size: losses, costs, pseudo-values (`image_values`)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from stresslens.metrics.intervals import Floats
from stresslens.metrics.random_effects import Crossed, moments, paired_random_effects


@dataclass(frozen=True)
class PairedValues:
    """The mean of paired differences over seeds × images (`table`). `bias` is about how much of it is
    due to noise: bounds and p allow for all of it, and for none."""

    table: Crossed
    bias: float = 0.0

    @property
    def _middles(self) -> tuple[float, float]:
        mean = float(self.table.mean)
        return min(mean, mean - self.bias), max(mean, mean - self.bias)

    def bounds(self, level: float) -> tuple[float, float]:
        """The interval of a level: it reaches from the difference without the bias to that with it, with
        the margin at both ends."""
        margin, (lower, upper) = float(self.table.margin(1 - level)), self._middles
        return lower - margin, upper + margin

    @property
    def p(self) -> float:
        """Two-sided p for a mean of zero: the p whose interval ends at zero."""
        lower, upper = self._middles
        nearest = max(0.0, lower, -upper)
        return float(replace(self.table, mean=np.asarray(nearest)).p) if nearest else 1.0


def paired_values(
    delta: Floats, *, whole: float = 1.0, unseen: float = 0.0, bias: float = 0.0
) -> PairedValues:
    """The random-effects model of differences (seeds, images); `whole` and `unseen` are as in
    `paired_random_effects`.

    A few images may make up most of their variance. Then it is known as badly as from that number of
    images, (Σu²)² / Σu⁴ for deviations u from the mean: Student's t with one degree of freedom less
    replaces the normal distribution over images.
    """
    table = paired_random_effects(moments(delta), whole=whole, unseen=unseen)
    squares = np.square(delta.mean(0) - delta.mean())
    fourth = float(np.square(squares).sum())
    deciding = float(squares.sum()) ** 2 / fourth if fourth > 0 else delta.shape[1]
    return PairedValues(replace(table, freedom=max(1.0, deciding - 1)), bias)
