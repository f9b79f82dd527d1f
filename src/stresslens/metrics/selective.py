"""Thresholds with a guarantee: answer only where the errors are rare enough, or find a class at a rate.

Images with labels that the model was not trained on calibrate a threshold. The guarantee holds for new
images from their distribution, in a share `level` of draws of the calibration images, whatever the
model. Pure functions of scores (N,).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stresslens.metrics.intervals import Floats

PLANS = 60
"""How many sizes of a larger calibration set are tried, from the present one to `MORE` times it."""
MORE = 1000


@dataclass(frozen=True)
class SelectiveThreshold:
    """Answers where the confidence is above `threshold`; infinity: nowhere.

    Of the `n` calibration images `answered` are above it, and `errors` of these are wrong. If nothing
    holds, `needed` is about how many images it would take, None if more images would not help.
    """

    threshold: float
    risk: float
    n: int
    answered: int
    errors: int
    needed: int | None
    level: float = 0.95

    @property
    def holds(self) -> bool:
        return self.answered > 0


def selective_threshold(
    confidence: Floats, right: NDArray[np.bool_], risk: float, *, level: float = 0.95
) -> SelectiveThreshold:
    """The lowest threshold of the confidence (n,) above which at most a share `risk`, in (0, 1), of the
    answers is wrong.

    Selection with guaranteed risk (Geifman & El-Yaniv 2017), with the tests of Learn then Test
    (Angelopoulos et al. 2021, fixed sequences with several starts) in place of their bisection: from
    the fewest most confident images on that could show it, one image more at a time, as long as the
    exact binomial test shows an error rate of at most `risk`. The starts share 1 - `level` equally.
    """
    n = len(confidence)
    order = np.argsort(-confidence, kind="stable")
    ordered, errors = confidence[order], np.cumsum(~right[order], dtype=np.int64)
    # the images above the next lower confidence: a threshold lies between different values
    ends = np.flatnonzero(np.append(ordered[1:] < ordered[:-1], True)) + 1 if n else np.arange(0)
    starts = _starts(n, risk, level)
    shown = _shown(errors[ends - 1], ends, risk, (1 - level) / len(starts))
    best = 0
    for start in starts:
        first = int(np.searchsorted(ends, start))
        failed = np.flatnonzero(~shown[first:])
        last = first + (int(failed[0]) if len(failed) else len(ends) - first) - 1
        best = max(best, int(ends[last]) if last >= first else 0)
    if not best:
        return SelectiveThreshold(math.inf, risk, n, 0, 0, _needed(errors, n, risk, level), level)
    below = -math.inf if best == n else float(ordered[best])
    return SelectiveThreshold(below, risk, n, best, int(errors[best - 1]), None, level)


def _fewest_without_error(risk: float, alpha: float) -> int:
    """The images that show an error rate of at most `risk` if none of them is wrong."""
    return math.ceil(math.log(alpha) / math.log1p(-risk) - 1e-9)


def _starts(n: int, risk: float, level: float) -> list[int]:
    """The numbers of most confident images at which a sequence of tests starts: the fewest that can show
    the rate, twice as many, and so on. They depend on nothing but n."""
    count = 1
    while _fewest_without_error(risk, (1 - level) / (count + 1)) * 2**count <= n:
        count += 1
    fewest = _fewest_without_error(risk, (1 - level) / count)
    return [fewest * 2**k for k in range(count)]


def _shown(errors: NDArray[np.int64], m: NDArray[np.int64], risk: float, alpha: float) -> NDArray[np.bool_]:
    """(…) whether `errors` among m images show an error rate of at most `risk`: the chance of so few at
    that rate is at most alpha."""
    from scipy.special import bdtr

    return np.asarray(bdtr(errors.astype(float), m, risk) <= alpha)


def _needed(errors: NDArray[np.int64], n: int, risk: float, level: float) -> int | None:
    """About how many calibration images would let one of the starts show the rate, if among the most
    confident images errors are as frequent as now, and one more of them wrong.

    Where all n are right, the number without any error.
    """
    if n == 0 or int(errors[-1]) == 0:
        return max(n + 1, _fewest_without_error(risk, 1 - level))
    for factor in np.geomspace(1, MORE, PLANS):
        starts = np.array(_starts(int(n * factor), risk, level))
        now = np.clip(np.ceil(starts / factor).astype(np.int64), 1, n)
        expected = np.ceil((errors[now - 1] + 1) / (now + 1) * starts).astype(np.int64)
        possible = starts <= n * factor
        if (_shown(expected, starts, risk, (1 - level) / len(starts)) & possible).any():
            return int(max(n + 1, math.ceil(n * factor)))
    return None


@dataclass(frozen=True)
class RecallThreshold:
    """Finds a class where its probability is at least `threshold`; -infinity: everywhere.

    Of the `n` calibration images of the class, `missed` are below it. `usual` is the highest threshold
    that finds the wanted share of these n images themselves; the threshold that finds this share of all
    images of the class lies between `threshold` and `high`, in a share 2 · `level` - 1 of draws.
    """

    threshold: float
    recall: float
    n: int
    missed: int
    usual: float
    high: float
    level: float = 0.95

    @property
    def holds(self) -> bool:
        return math.isfinite(self.threshold)


def recall_threshold(scores: Floats, recall: float, *, level: float = 0.95) -> RecallThreshold:
    """The highest threshold of a class's probability that at least a share `recall`, in (0, 1), of its
    images reaches, by the scores (n,) of images of the class.

    It is an order statistic of the scores: of the images of the class, the share below the k-th
    smallest score is at most 1 - recall with the chance that a binomial variable of n trials is at
    least k (distribution-free; Wilks 1941). With fewer than `fewest_of_class` images none holds.
    """
    from scipy.special import bdtr

    n, ordered = len(scores), np.sort(scores)
    # (n,) for k = 1 … n, the chance that at least k of n images lie below the wanted quantile
    chances = 1 - bdtr(np.arange(n, dtype=float), n, 1 - recall)
    k = int((chances >= level).sum())
    allowed = math.floor(n * (1 - recall) + 1e-9)
    usual = float(ordered[min(allowed, n - 1)]) if n else -math.inf
    upper = int((chances > 1 - level).sum())
    low = float(ordered[k - 1]) if k else -math.inf
    high = float(ordered[upper]) if upper < n else math.inf
    missed = int((scores < low).sum())
    return RecallThreshold(low, recall, n, missed, usual, high, level)


def fewest_of_class(recall: float, *, level: float = 0.95) -> int:
    """The images of a class that it takes to show any threshold for a recall."""
    return math.ceil(math.log(1 - level) / math.log(recall) - 1e-9)
