"""What accuracies alone say of models, where nobody kept the predictions: a table with one a seed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np

from stresslens.comparison.difference import LEVEL
from stresslens.comparison.folders import FolderComparison
from stresslens.comparison.schema import ComparisonFile, Contrast
from stresslens.core.errors import ConfigError
from stresslens.core.text import counted, enumeration
from stresslens.core.types import Estimate
from stresslens.evaluation.accuracy_table import ReportedAccuracy
from stresslens.metrics.intervals import wilson
from stresslens.metrics.paired import holm
from stresslens.metrics.random_effects import FEWEST_SEEDS

CANNOT = (
    "Accuracies alone do not say which images each model gets right, so images are not paired: differences "
    "that the predictions would show may be missed. Give files of predictions to pair them"
)


def estimate_of(reported: ReportedAccuracy) -> Estimate:
    """The mean with its interval: Student's t over the seeds, and the normal distribution over the images
    if their number is known, margins added as variances (Zou & Donner 2008). Wilson's with one seed; NaN
    where one seed is all that is known."""
    n, mean = len(reported.accuracies), _mean(reported)
    if n == 1 and reported.images:
        return wilson(mean * reported.images, reported.images, level=LEVEL)
    half = _margin([reported], 1 - LEVEL)
    low, high = np.clip([mean - half, mean + half], 0, 1).tolist()
    if not reported.images:
        return Estimate(mean, low, high, n, f"t over {counted(n, 'seed')}", LEVEL, "seeds")
    return Estimate(
        mean, low, high, reported.images, f"t over {n} seeds and normal over images", LEVEL, "both"
    )


def _mean(reported: ReportedAccuracy) -> float:
    return float(np.mean(reported.accuracies))


def _margin(sides: Sequence[ReportedAccuracy], p: float) -> float:
    """Half the width of the interval of level 1 - p of a mean, or of the difference of two: Welch's t over
    the seeds, and for the images the largest variance that a share can have, as all seeds share them.

    NaN where seeds do not show how much they vary: one of them without a number of images or beside
    several, and several with the same accuracy.
    """
    from scipy.special import ndtri, stdtrit

    seeds = [len(side.accuracies) for side in sides]
    shares = [_mean(side) for side in sides]
    of_images = sum(m * (1 - m) / side.images for m, side in zip(shares, sides) if side.images)
    images = float(ndtri(p / 2)) ** 2 * of_images
    if max(seeds) == 1:
        return math.sqrt(images) if all(side.images for side in sides) else math.nan
    of_seeds = [float(np.var(side.accuracies, ddof=1)) / n for side, n in zip(sides, seeds) if n > 1]
    if min(seeds) == 1 or all(np.ptp(side.accuracies) == 0 for side in sides):
        return math.nan
    freedom = sum(of_seeds) ** 2 / sum(each**2 / (n - 1) for each, n in zip(of_seeds, seeds))
    return math.sqrt(float(stdtrit(freedom, p / 2)) ** 2 * sum(of_seeds) + images)


def compare_reported(reported: Mapping[str, ReportedAccuracy]) -> FolderComparison:
    """Each variant against the first, by accuracies alone: Welch's t test over the seeds, widened by what
    other images of the same number could change, with Holm's correction. Raises ConfigError for fewer than
    two variants."""
    names = list(reported)
    if len(names) < 2:
        raise ConfigError(f"there are the accuracies of {names[0]} alone; give those of two variants or more")
    first, *others = names
    p = {(first, other): _p(reported[first], reported[other]) for other in others}
    corrected = holm({pair: value for pair, value in p.items() if not math.isnan(value)})
    contrasts = [
        _contrast(first, other, reported, p[first, other], corrected.get((first, other))) for other in others
    ]
    unknown = [name for name in names if reported[name].images is None]
    limits = [CANNOT]
    if unknown:
        limits.append(
            f"The number of test images of {enumeration(unknown, 3)} is not known, so intervals hold for "
            "these images alone; give it in a column `images`"
        )
    compared = ComparisonFile(
        format=1,
        split="reported",
        metric="accuracy",
        level=LEVEL,
        recipes={name: estimate_of(each) for name, each in reported.items()},
        contrasts=contrasts,
        verdicts=[*(each.verdict for each in contrasts), *limits],
    )
    worse = [each.verdict for each in contrasts if each.real and each.difference.value < 0]
    return FolderComparison("recipe", compared, worse)


def _p(a: ReportedAccuracy, b: ReportedAccuracy) -> float:
    """Two-sided p of the difference: that whose interval ends at 0. NaN where nothing can be said, and for
    fewer than three seeds, which do not show how much seeds vary."""
    if any(1 < len(side.accuracies) < FEWEST_SEEDS for side in (a, b)) or math.isnan(_margin([a, b], 0.5)):
        return math.nan
    difference = abs(_mean(a) - _mean(b))
    return _root(lambda p: _margin([a, b], p) - difference)


def _root(excess: Callable[[float], float]) -> float:
    """The p in (0, 1) at which a falling function is 0, to a relative 1e-9."""
    low, high = math.log(1e-15), 0.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if excess(math.exp(middle)) >= 0 else (low, middle)
    return math.exp(high)


def _contrast(
    a: str, b: str, reported: Mapping[str, ReportedAccuracy], p: float, p_holm: float | None
) -> Contrast:
    sides = [reported[a], reported[b]]
    value, half = _mean(sides[1]) - _mean(sides[0]), _margin(sides, 1 - LEVEL)
    seeds = [len(side.accuracies) for side in sides]
    with_images = all(side.images for side in sides)
    n = min(side.images or 0 for side in sides) if with_images else min(seeds)
    several = max(seeds) > 1
    method = "Welch t over seeds" if several else "normal"
    method += " and images, not paired" if with_images else ""
    over: Literal["images", "seeds", "both"] = "both" if several else "images"
    unit = over if with_images else "seeds"
    difference = Estimate(value, value - half, value + half, n, method, LEVEL, unit)
    real = p_holm is not None and p_holm < 1 - LEVEL
    verdict = _verdict(a, b, difference, seeds, real, known=not math.isnan(p))
    return Contrast(
        contrast="against the first",
        a=a,
        b=b,
        difference=difference,
        p=None if math.isnan(p) else p,
        p_holm=p_holm,
        real=real,
        verdict=verdict,
    )


def _verdict(a: str, b: str, d: Estimate, seeds: Sequence[int], real: bool, *, known: bool) -> str:
    ahead, behind = (b, a) if d.value > 0 else (a, b)
    points = f"{100 * abs(d.value):.1f} points"
    each = f"{seeds[0]} seeds each" if len(set(seeds)) == 1 else f"{seeds[0]} and {seeds[1]} seeds"
    each, these = (each, "") if max(seeds) > 1 else ("one seed each", "; this is about these weights")
    if not known:
        why = f"{each}, {'too few to test' if min(seeds) < FEWEST_SEEDS else 'which do not vary'}"
        why = "one figure each and no number of images" if max(seeds) == 1 else why
        return f"{a} and {b}: {ahead} is ahead by {points}; nobody can say whether by chance ({why})"
    low, high = sorted((100 * d.low, 100 * d.high) if d.value > 0 else (-100 * d.high, -100 * d.low))
    images = "" if d.unit == "seeds" else f", {d.n:,} images, not paired"
    over = f"({low:.1f} to {high:.1f}; {each}{images})"
    if real:
        return f"{ahead} is better than {behind} by {points} {over}{these}"
    return f"{a} and {b} are not distinguishable: {ahead} is ahead by {points} {over}"
