"""The accuracy difference of two variants: its interval, p, whether it is real, and how many images
and seeds would be needed to tell."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np
from numpy.typing import NDArray

from stresslens.comparison.schema import Contrast
from stresslens.core.types import Estimate
from stresslens.evaluation.record import DivisionRecord
from stresslens.metrics import random_effects
from stresslens.metrics.intervals import Floats
from stresslens.metrics.measures import ACCURACY, Measure
from stresslens.metrics.paired import holm, mcnemar, resampled, resampled_reach

LEVEL = 0.95
SAME = 0.0005
"""Smaller differences of accuracies vanish in points of one decimal."""

Right = NDArray[np.floating]
"""(seeds, images): 1 where a seed's model answers an image correctly, else 0."""


@dataclass(frozen=True)
class Difference:
    """Accuracy of b minus accuracy of a, with p before and after Holm's correction, and a plan: how
    many images and seeds would be needed to tell a difference of `ask`. These are `takes` in words,
    empty if the `present` ones are enough.

    `divisions`: each seed uses another division of the same images, with `images` test images each.
    `under`: the attack on the images before they were classified, in words; empty without one.
    `balanced`: the difference in balanced accuracy, if the classes are unbalanced. `too_few_seeds`:
    the images tell the two apart, but two seeds cannot show how much seeds vary. `same_function`:
    see `tested_run.same_function`. `threat`: a full key of that attack, which separates attacks
    with the same `under`. `ends_at`: the two ends of the interval at a level; `skewed_ends_at`:
    those where the seeds are skewed, which may be further out. `needs`: the images and
    seeds in words, as `takes`, that a `Goal` takes; None where it is not known. `measure`: what the
    difference is of, where it is not the accuracy; its unit is that of the difference. `whole`: as in
    `Metric`, the largest difference that one image can make, times the number of images.
    """

    contrast: str
    a: str
    b: str
    difference: Estimate
    p: float
    seeds: int
    images: int
    ask: float = 0.005
    present: str = ""
    takes: str = ""
    divisions: bool = False
    under: str = ""
    threat: str = ""
    p_holm: float = 1.0
    balanced: Estimate | None = None
    too_few_seeds: bool = False
    same_function: bool = False
    measure: Measure = ACCURACY
    whole: float = 1.0
    ends_at: Callable[[float], tuple[float, float]] | None = field(default=None, compare=False, repr=False)
    skewed_ends_at: Callable[[float], tuple[float, float]] | None = field(
        default=None, compare=False, repr=False
    )
    needs: Callable[[random_effects.Goal], str] | None = field(default=None, compare=False, repr=False)

    @property
    def adjusted(self) -> Estimate | None:
        """The interval after Holm's correction, where it alone includes 0; else None.

        Its level is the one at which this difference is tested: 1 - (1 - level) · p / Holm's p.
        """
        d = self.difference
        inside = not (d.low > 0 or d.high < 0)
        if self.real or inside or self.too_few_seeds or self.ends_at is None or not self.p_holm:
            return None
        level = 1 - (1 - d.level) * self.p / self.p_holm
        low, high = self.ends_at(level)
        method = f"{d.method}, after Holm's correction"
        return replace(d, low=min(low, 0.0), high=max(high, 0.0), level=level, method=method)

    @property
    def real(self) -> bool:
        """Whether the interval excludes 0 and Holm's p is below 1 - level."""
        outside = self.difference.low > 0 or self.difference.high < 0
        return outside and self.p_holm < 1 - self.difference.level

    @property
    def plan(self) -> str:
        """The plan in words. A difference that is real was told with the present ones; the plan then
        says what it takes to find it again."""
        ask = self.measure.asked(self.ask)
        if not self.takes:
            return f"these {self.present} are enough to tell {ask} apart in a single comparison"
        if self.real and self.ask >= planned_difference(self.difference.value, self.measure):
            return f"finding {ask} again with 80 % chance would take {self.takes}"
        return f"telling {ask} apart would take {self.takes}"

    @property
    def verdict(self) -> str:
        same = "; from equal weights both networks compute the same, up to rounding"
        return self._verdict + self._by_balanced_accuracy + (same if self.same_function else "")

    @property
    def _verdict(self) -> str:
        d = self.adjusted or self.difference
        points = self.measure.amount(d.value)
        better, worse = (self.b, self.a) if self.measure.is_better(d.value) else (self.a, self.b)
        under = f" under {self.under}" if self.under else ""
        same = f"{self.a} and {self.b} are not distinguishable{under}"
        if d.value == 0:
            return f"{same}: no difference {self.measure.seen}was seen ({self.over})"
        after = " after Holm's correction" if self.adjusted else ""
        over = f"({_ends(d, d.value < 0, self.measure)}{after}; {self.over})"
        if self.real:
            tail = (
                ""
                if self.seeds > 1
                else "; one seed each, so this is about these weights, not about the variants"
            )
            adjective = "more robust" if self.under else "better"
            return f"{better} is {adjective} than {worse}{under} by {points} {over}{tail}"
        if self.too_few_seeds:
            return (
                f"{self.a} and {self.b}{under}: {better} is ahead by {points} in the mean of {self.seeds} "
                f"seeds, too few seeds to test{' this many pairs' if d.low > 0 or d.high < 0 else ''} "
                f"({self.images} images)"
            )
        if abs(d.value) < self.measure.smallest:
            over = f"({_ends(d, False, self.measure)}{after}; {self.over})"
            return f"{same}: {self.b} minus {self.a} is {self.measure.amount(0.0)} {over}"
        return f"{same}: {better} is ahead by {points} {over}"

    @property
    def _by_balanced_accuracy(self) -> str:
        if (e := self.balanced) is None:
            return ""
        few = 1 < self.seeds < random_effects.FEWEST_SEEDS
        over = f"in the mean of {self.seeds} seeds" if few else f"({_ends(e, e.value < 0)})"
        ahead = f"{self.b if e.value > 0 else self.a} is ahead by {100 * abs(e.value):.1f} points"
        return f"; by balanced accuracy {ahead if abs(e.value) >= SAME else 'no difference was seen'} {over}"

    @property
    def over(self) -> str:
        """What was compared, in words: `3 seeds, 360 images`."""
        if self.divisions:
            return f"{self.seeds} divisions, {self.images} test images each"
        return f"{self.seeds} seeds, {self.images} images" if self.seeds > 1 else f"{self.images} images"

    def as_contrast(self) -> Contrast:
        contrast = Contrast(
            contrast=self.contrast,
            a=self.a,
            b=self.b,
            difference=self.difference,
            p=self.p,
            p_holm=self.p_holm,
            real=self.real,
            verdict=self.verdict,
            plan=self.plan,
        )
        if self.balanced is not None:
            contrast.balanced = self.balanced
        if self.too_few_seeds and not self.real:
            contrast.too_few_seeds = True
        if (adjusted := self.adjusted) is not None:
            contrast.adjusted = adjusted
        if self.measure != ACCURACY:
            contrast.metric = self.measure.name
        return contrast


def difference_of(
    contrast: str, a: str, b: str, right_a: Right, right_b: Right, *, ask: float | None = None
) -> Difference:
    """Compare two variants on the same images and seeds, paired over both. With one seed, this
    compares two sets of weights.

    With several seeds, interval and p come from `random_effects.paired_random_effects`, and agree.
    With one seed, p is McNemar's exact test; the interval is Bonett & Price's, widened to include
    zero where the test does not reject. `ask` is the difference that the plan is for; None means
    `planned_difference` of the observed one. `n` is the number of images.
    """
    delta = np.subtract(right_b, right_a, dtype=np.float32)
    seeds, images = delta.shape
    table, value = (
        random_effects.paired_random_effects(random_effects.moments(delta)),
        float(delta.mean(dtype=np.float64)),
    )

    def ends_at(level: float) -> tuple[float, float]:
        margin = float(table.margin(1 - level))
        return max(-1.0, float(table.mean) - margin), min(1.0, float(table.mean) + margin)

    @cache
    def recipe(of_b: bool) -> tuple[random_effects.SumsOfSquares, random_effects.Crossed]:
        right = np.asarray(right_b if of_b else right_a, np.float32)
        return random_effects.shares(random_effects.moments(right))

    def skewed_ends_at(level: float) -> tuple[float, float]:
        low, high = random_effects.skewed_ends(recipe(False), recipe(True), table, level=level)
        return float(low), float(high)

    low, high = ends_at(LEVEL)
    if seeds > 1:
        p, method = float(table.p), f"t over {seeds} seeds and normal over images, margins added as variances"
    else:
        p, method = mcnemar(int((delta < 0).sum()), int((delta > 0).sum())), "Bonett & Price, paired"
        low, high = (min(low, 0.0), max(high, 0.0)) if p >= 1 - LEVEL else (low, high)
    estimate = Estimate(
        value, min(low, value), max(high, value), images, method, LEVEL, "both" if seeds > 1 else "images"
    )
    ask = ask or planned_difference(value)
    present = f"{seeds} seeds and {images:,} images" if seeds > 1 else f"{images:,} images"
    takes = takes_in_words(table, images, random_effects.Goal(ask, LEVEL))
    too_few = 1 < seeds < random_effects.FEWEST_SEEDS and images_tell(delta)
    return Difference(
        contrast,
        a,
        b,
        estimate,
        p,
        seeds,
        images,
        ask,
        present,
        takes,
        too_few_seeds=too_few,
        ends_at=ends_at,
        skewed_ends_at=skewed_ends_at if seeds >= random_effects.FEWEST_SEEDS else None,
        needs=lambda goal: takes_in_words(table, images, goal),
    )


def images_tell(delta: Right) -> bool:
    """Whether the images alone tell the two apart: seeds (seeds, images) that all agree on the
    sign, and an interval over images that excludes 0 in each."""
    each = random_effects.paired_random_effects(random_effects.moments(delta[:, None]))
    low, high = (each.mean + side * each.margin(1 - LEVEL) for side in (-1, 1))
    return bool((low > 0).all() or (high < 0).all())


def divided_difference_of(
    contrast: str,
    a: str,
    b: str,
    difference: Floats,
    divisions: Sequence[DivisionRecord],
    *,
    ask: float | None = None,
    measure: Measure = ACCURACY,
) -> Difference:
    """Compare two variants over J divisions of the same images, by the corrected resampled t test
    on the differences of their accuracies, or of another `measure`, (J,)."""
    estimate, p = estimate_over_divisions(difference, divisions)
    most = measure.ends[1] - measure.ends[0]
    estimate = replace(estimate, low=max(-most, estimate.low), high=min(most, estimate.high))
    train, test = _sizes(divisions)
    ask = ask or planned_difference(estimate.value, measure)
    present = f"{len(difference)} divisions of {round(train + test):,} images"

    def needs(goal: random_effects.Goal) -> str:
        size = {"grain": 1 / test, "level": goal.level, "power": goal.power}
        needed = (train + test) * (
            resampled_reach(difference, test / train, **size) / goal.difference
        ) ** 2 + goal.room * (train + test) / (test * goal.difference)
        more = f"about {_rounded_up(needed)} images in all, divided in the same way"
        return "" if needed <= train + test else more

    def ends_at(level: float) -> tuple[float, float]:
        margin, _ = resampled(difference, test / train, grain=1 / test, level=level)
        return max(-most, estimate.value - margin), min(most, estimate.value + margin)

    return Difference(
        contrast,
        a,
        b,
        estimate,
        p,
        len(difference),
        estimate.n,
        ask,
        present,
        needs(random_effects.Goal(ask, LEVEL)),
        divisions=True,
        measure=measure,
        ends_at=ends_at,
        needs=needs,
    )


def estimate_over_divisions(values: Floats, divisions: Sequence[DivisionRecord]) -> tuple[Estimate, float]:
    """The mean of one value per division, with interval and p. `n` is the number of test images of
    a division."""
    train, test = _sizes(divisions)
    margin, p = resampled(values, test / train, grain=1 / test, level=LEVEL)
    value, method = float(values.mean()), f"corrected resampled t over {len(values)} divisions"
    return Estimate(value, value - margin, value + margin, round(test), method, LEVEL, "both"), p


def _sizes(divisions: Sequence[DivisionRecord]) -> tuple[float, float]:
    """Mean number of training and of test images of a division."""
    n = len(divisions)
    return sum(each.train for each in divisions) / n, sum(each.test for each in divisions) / n


def planned_difference(seen: float, measure: Measure = ACCURACY) -> float:
    """The default difference of a plan: the observed difference, rounded to half a point (to a
    whole point from 5 points on), at least half a point. Of a measure in another unit: rounded to one
    digit, at least 0.005."""
    if not measure.is_share:
        digit = 10.0 ** math.floor(math.log10(max(abs(seen), 0.005)))
        return max(0.005, round(abs(seen) / digit) * digit)
    step = 0.005 if abs(seen) < 0.05 else 0.01
    return max(0.005, round(abs(seen) / step) * step)


def with_holm(differences: list[Difference]) -> list[Difference]:
    """Apply Holm's (1979) step-down correction over every tested pair of the study. A pair in
    several contrasts counts once."""
    corrected = holm({(d.a, d.b, d.under, d.threat): d.p for d in differences})
    return [replace(d, p_holm=corrected[d.a, d.b, d.under, d.threat]) for d in differences]


def takes_in_words(table: random_effects.Crossed, images: int, goal: random_effects.Goal) -> str:
    """The seeds and images that a goal takes in words; empty if the present ones do."""
    seeds, needed = random_effects.plan_for(table, goal)
    if needed is None:
        return "" if seeds == table.seeds else f"about {seeds} seeds on these {images:,} images"
    if math.isinf(needed):
        return f"more than {random_effects.MOST_SEEDS:,} seeds or {random_effects.MOST_IMAGES:,} images"
    suffix = ", for these weights alone" if seeds == 1 else f" and {seeds} seeds"
    return f"about {_rounded_up(needed)} images{suffix}"


def _ends(estimate: Estimate, turned: bool, measure: Measure = ACCURACY) -> str:
    """`-1.4 to 0.3`: the ends of an interval in points; `turned` for the difference the other way."""
    ends = (-estimate.high, -estimate.low) if turned else (estimate.low, estimate.high)
    return measure.interval(*ends)


def _rounded_up(count: float) -> str:
    """The count, rounded up to two digits."""
    step = 10 ** max(0, math.floor(math.log10(count)) - 1)
    return f"{math.ceil(count / step) * step:,}"
