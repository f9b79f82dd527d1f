"""Random-effects model of a seeds × images table: interval and p of its mean, sample sizes needed.

The two-way random-effects model without replication (Searle, Casella & McCulloch 1992, ch. 4) is
value = mean + seed + image + rest; seeds and images are both samples. Leading axes, written `…`,
are separate tables, so that many pairs are computed at once.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from stresslens.core.types import Estimate
from stresslens.metrics.intervals import Floats, t_mean, wilson_bounds

SMALLEST_P = 1e-15
POWER = 0.8
MOST_SEEDS = 1000
MOST_IMAGES = 10**9
FEWEST_SEEDS = 3
"""With fewer, the seeds do not show how they are distributed."""


@dataclass(frozen=True)
class Crossed:
    """A mean (…) over crossed seeds and images, with its mean squares (…).

    `images` includes added pseudo-images. The expected values of `ms_rest`, `ms_seeds` and
    `ms_images` are rest, rest + images · var(seed), and rest + seeds · var(image). `freedom` is
    how many degrees of freedom the variance of the images has, infinite where it is None.
    """

    mean: Floats
    seeds: int
    images: float
    ms_seeds: Floats
    ms_images: Floats
    ms_rest: Floats
    freedom: float | None = None

    @property
    def var_seed(self) -> Floats:
        return np.maximum(self.ms_seeds - self.ms_rest, 0) / self.images

    @property
    def var_image(self) -> Floats:
        return np.maximum(self.ms_images - self.ms_rest, 0) / self.seeds

    def margin(self, p: Floats | float) -> Floats:
        """Half the width of the interval of level 1 - p.

        It is √(t² · variance between seeds + z² · variance that the images add), where t has seeds
        - 1 degrees of freedom: the two margins are added like variances (Zou & Donner 2008). It is
        never narrower than Student's t over the seeds.
        """
        from scipy.special import ndtri, stdtrit

        between_seeds = self.ms_seeds / (self.seeds * self.images)
        t, tail = stdtrit(max(self.seeds - 1, 1), np.divide(p, 2)), np.divide(p, 2)
        z = ndtri(tail) if self.freedom is None else stdtrit(self.freedom, tail)
        margin: Floats = np.sqrt(t**2 * between_seeds + z**2 * self.var_image / self.images)
        return margin

    @property
    def p(self) -> Floats:
        """Two-sided p (…) for a mean of zero: the p whose interval ends at zero.

        It is at least `SMALLEST_P`.
        """
        low, high = np.full_like(self.mean, math.log(SMALLEST_P)), np.zeros_like(self.mean)
        for _ in range(60):
            middle = (low + high) / 2
            reaches = self.margin(np.exp(middle)) >= np.abs(self.mean)
            low, high = np.where(reaches, middle, low), np.where(reaches, high, middle)
        p: Floats = np.exp(high)
        return p


@dataclass(frozen=True)
class SumsOfSquares:
    """Sufficient statistics of values (…, seeds, images)."""

    of_seeds: Floats
    """(…, seeds) mean of each seed."""
    of_images: Floats
    """(…, images) mean of each image."""
    square: Floats
    """(…) sum of squares."""


def moments(values: NDArray[np.floating]) -> SumsOfSquares:
    square = np.einsum("...si,...si->...", values, values, dtype=np.float64)
    return SumsOfSquares(values.mean(-1, dtype=np.float64), values.mean(-2, dtype=np.float64), square)


def crossed(
    of: SumsOfSquares,
    *,
    ends: tuple[Floats | float, Floats | float] = (0.0, 0.0),
    weight: float = 0,
    answer: float = 0,
) -> Crossed:
    """The mean with its mean squares.

    Two additions keep intervals of small counts from being too narrow. `weight` pseudo-images have
    the value of each of the two `ends` in every seed. One more prediction of one seed differs by
    `answer`, because seeds that agree on every image may do so by chance.
    """
    seeds, n = of.of_seeds.shape[-1], of.of_images.shape[-1]
    mean = of.of_seeds.mean(-1)
    squares = (of.of_images**2).sum(-1)
    between_seeds = n * ((of.of_seeds - mean[..., None]) ** 2).sum(-1)
    rest = np.maximum(of.square - seeds * squares - between_seeds, 0)
    between_seeds += answer**2 * (1 - 1 / seeds) / n
    images = n + 2 * weight
    mean = (n * mean + weight * (ends[0] + ends[1])) / images
    between_images = seeds * np.maximum(
        squares + weight * (np.square(ends[0]) + np.square(ends[1])) - images * mean**2, 0
    )
    return Crossed(
        mean,
        seeds,
        images,
        between_seeds / max(seeds - 1, 1),
        between_images / (images - 1),
        rest / (max(seeds - 1, 1) * max(n - 1, 1)),
    )


def paired_random_effects(of: SumsOfSquares, *, whole: float = 1.0, unseen: float = 0.0) -> Crossed:
    """The mean of paired differences (…, seeds, images), each in [-whole, whole].

    Two pseudo-images are added, one for each sign. Their size is that of a typical image that
    differs: Σd² / Σ|d| over the images' means d, or `whole` if none differs; at least `unseen`,
    where rare images may differ by more than those that were seen. Half a prediction is added in
    one seed. With one seed this is the interval of Bonett & Price (2012).
    """
    total = np.abs(of.of_images).sum(-1)
    typical = np.where(total > 0, (of.of_images**2).sum(-1) / np.where(total > 0, total, 1), whole)
    typical = np.maximum(typical, unseen)
    return crossed(of, ends=(-typical, typical), weight=1, answer=0.5)


def proportion_bounds(of: SumsOfSquares, *, level: float = 0.95) -> tuple[Floats, Floats]:
    """The bounds (…) of the share of ones: the wider of two intervals at each end.

    One is `wilson` with an effective number of images: the number that gives the margin of
    `Crossed`, with half a correct and half a wrong image added; it is at most seeds × images. With
    one seed it is Wilson's interval. The other, from `FEWEST_SEEDS` on, is `_skewed_bounds`: where
    seeds vary much below 100 %, the seeds that decide the mean are the rare bad ones.
    """
    from scipy.special import ndtri

    mean, (seeds, images) = of.of_seeds.mean(-1), (of.of_seeds.shape[-1], of.of_images.shape[-1])
    z2 = np.square(ndtri(0.5 + level / 2))
    trials = np.full_like(mean, seeds * images)
    if seeds == 1:
        return wilson_bounds(mean, trials, level=level)
    _, table = shares(of)
    share = np.square(table.margin(1 - level)) / (table.mean * (1 - table.mean))  # z² / trials
    low, high = wilson_bounds(mean, z2 / np.maximum(share, z2 / trials), level=level)
    if seeds < FEWEST_SEEDS:
        return low, high
    below, above = _skewed_bounds(of, table, level=level)
    return np.minimum(low, below), np.maximum(high, above)


ADDED = 0.1
"""Right and wrong answers that are added to each seed's: the probit of 100 % is infinite."""


def shares(of: SumsOfSquares) -> tuple[SumsOfSquares, Crossed]:
    """Right answers with their table, to which half a correct and half a wrong image are added."""
    return of, crossed(of, ends=(0.0, 1.0), weight=0.5)


def skewed_ends(
    first: tuple[SumsOfSquares, Crossed],
    second: tuple[SumsOfSquares, Crossed],
    difference: Crossed,
    *,
    level: float = 0.95,
) -> tuple[Floats, Floats]:
    """The ends (…) of the second mean accuracy minus the first (each as of `shares`), where the seeds of each
    are skewed.

    What each recipe's seeds leave open (`_skewed_bounds`) and what the images add to the `difference` are
    added as variances (MOVER). The seeds of the two count as independent.
    """
    from scipy.special import ndtri

    images = ndtri(0.5 + level / 2) ** 2 * difference.var_image / difference.images
    down, up = images, images
    for (of, table), (lower, higher) in ((first, (1, 0)), (second, (0, 1))):
        mean, bounds = of.of_seeds.mean(-1), _skewed_bounds(of, table, level=level, with_images=False)
        reach = [np.maximum(side * (end - mean), 0) ** 2 for side, end in zip((-1, 1), bounds)]
        down, up = down + reach[lower], up + reach[higher]
    return difference.mean - np.sqrt(down), difference.mean + np.sqrt(up)


def _skewed_bounds(
    of: SumsOfSquares, table: Crossed, *, level: float, with_images: bool = True
) -> tuple[Floats, Floats]:
    """The bounds (…) of the mean accuracy Φ(μ / √(1 + σ²)) of seeds whose probits are normal (μ,
    σ²).

    The margins of μ (Student's t), of σ (chi-squared) and of the images are added as variances on
    the probit scale (MOVER; Zou, Taleban & Huo 2009, for the mean of a log-normal). σ² is the
    variance of the probits less the share that the images explain. Without `with_images` the images count
    as all that there are. A kind of seed that did not
    occur is not covered: n seeds without a failure leave up to 1 - 0.05^(1/n) of such seeds
    possible.
    """
    from scipy.special import chdtri, ndtr, ndtri, stdtrit

    seeds, images = of.of_seeds.shape[-1], of.of_images.shape[-1]
    free, tail = seeds - 1, (1 - level) / 2
    probits = ndtri((of.of_seeds * images + ADDED) / (images + 2 * ADDED))
    middle, variance = probits.mean(-1), probits.var(-1, ddof=1)
    noise = np.where(table.ms_seeds > 0, table.ms_rest / np.maximum(table.ms_seeds, 1e-300), 1.0)
    of_seeds = variance * np.clip(1 - noise, 0, 1)  # σ²
    steep = np.sqrt(1 + of_seeds)
    at = middle / steep
    around = -stdtrit(free, tail) * np.sqrt(variance / seeds) / steep
    density = np.exp(-np.square(ndtri(table.mean)) / 2) / math.sqrt(2 * math.pi)
    of_images = with_images * ndtri(tail) ** 2 * table.var_image / table.images / density**2
    ends = [middle / np.sqrt(1 + of_seeds * free / chdtri(free, p)) - at for p in (1 - tail, tail)]
    below = np.sqrt(around**2 + of_images + np.minimum(np.minimum(*ends), 0) ** 2)
    above = np.sqrt(around**2 + of_images + np.maximum(np.maximum(*ends), 0) ** 2)
    return ndtr(at - below), ndtr(at + above)


def proportion(right: NDArray[np.floating], *, level: float = 0.95) -> Estimate:
    """The share of ones in (seeds, images), with `proportion_bounds`; `n` is the number of
    images."""
    seeds, images = right.shape
    of = moments(right)
    low, high = proportion_bounds(of, level=level)
    method = f"Wilson, effective n from seeds × images ({seeds} seeds)" if seeds > 1 else "Wilson"
    if seeds >= FEWEST_SEEDS:
        method = f"wider of Wilson, effective n from seeds × images, and t of probits ({seeds} seeds)"
    unit: Literal["both", "images"] = "both" if seeds > 1 else "images"
    return Estimate(float(of.of_seeds.mean()), float(low), float(high), images, method, level, unit)


@dataclass(frozen=True)
class Goal:
    """What a study is planned for: that its interval of `level` ends within `difference` of the middle, with
    the chance `power`. An interval of sameness ends `room` / images further out."""

    difference: float
    level: float = 0.95
    power: float = POWER
    room: float = 0.0


def images_needed(table: Crossed, goal: Goal, seeds: int) -> float:
    """The number of images with which 8 of 10 studies of `seeds` seeds (or as many as `goal.power` says)
    detect the goal's difference.

    It is infinite if `MOST_IMAGES` are not enough. The variances of the (single) table are taken as
    known: difference = margin + z · √variance, with the z of the power.
    """
    from scipy.special import ndtri, stdtrit

    tail = (1 - goal.level) / 2
    t, z, z_power = float(-stdtrit(max(seeds - 1, 1), tail)), float(-ndtri(tail)), float(ndtri(goal.power))
    per_seed, rest, per_image = (
        float(table.var_seed) / seeds,
        float(table.ms_rest) / seeds,
        float(table.var_image),
    )

    def detectable(images: float) -> float:
        between_seeds, added = per_seed + rest / images, per_image / images
        margin = math.sqrt(t * t * between_seeds + z * z * added) + goal.room / images
        return margin + z_power * math.sqrt(between_seeds + added)

    low, high = 1.0, float(MOST_IMAGES)
    if detectable(high) > goal.difference:
        return math.inf
    while high > low * 1.001:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if detectable(middle) <= goal.difference else (middle, high)
    return math.ceil(high)


def plan(table: Crossed, difference: float, *, level: float = 0.95) -> tuple[int, float | None]:
    """`plan_for` a difference that is to be told from 0."""
    return plan_for(table, Goal(difference, level))


def plan_for(table: Crossed, goal: Goal) -> tuple[int, float | None]:
    """The numbers of seeds and images with which 8 of 10 studies (or as many as the goal says) reach it.

    None instead of a number of images stands for the present images. If at most four times as many
    seeds (or ten) are enough, more seeds alone are the plan. Otherwise it is the smallest number of
    seeds such that twice as many would still need 40 % of the images; the number of images is
    infinite if no plan is enough. With one seed the variance between seeds is unknown, and the plan
    has one seed.
    """

    def needed(seeds: int) -> float:
        return images_needed(table, goal, seeds)

    if table.seeds == 1:
        return 1, images if (images := needed(1)) > table.images else None
    choices = range(table.seeds, MOST_SEEDS + 1)
    alone = table.seeds + bisect_left(choices, True, key=lambda seeds: needed(seeds) <= table.images)
    balanced = table.seeds + bisect_left(
        choices, True, key=lambda seeds: needed(2 * seeds) >= 0.4 * needed(seeds)
    )
    if alone <= max(balanced, 4 * table.seeds, 10) and alone <= MOST_SEEDS:
        return alone, None
    return min(balanced, MOST_SEEDS), needed(min(balanced, MOST_SEEDS))


def over_seeds(estimates: Sequence[Estimate], *, bounded: bool) -> Estimate | None:
    """The only seed's own estimate; for several seeds their mean, with an interval no narrower than
    theirs over the images.

    Two seeds are too few for an interval over seeds: theirs reaches from the lower of their own
    lower ends to the higher of the upper ones. `bounded` keeps the interval within 0 and 1.
    """
    if len(estimates) < 2:
        return next(iter(estimates), None)
    if len(estimates) < FEWEST_SEEDS:
        value = sum(s.value for s in estimates) / len(estimates)
        low, high = min(s.low for s in estimates), max(s.high for s in estimates)
        method = f"both runs' own together ({len(estimates)} seeds are too few for an interval over seeds)"
        return Estimate(value, low, high, max(s.n for s in estimates), method)
    mean = t_mean(np.array([s.value for s in estimates]))
    low = min(mean.low, sum(s.low for s in estimates) / len(estimates))
    high = max(mean.high, sum(s.high for s in estimates) / len(estimates))
    if bounded:
        low, high = max(0.0, low), min(1.0, high)
    method = f"wider of t over {len(estimates)} seeds and a run's own"
    return Estimate(mean.value, low, high, max(s.n for s in estimates), method, mean.level, "both")
