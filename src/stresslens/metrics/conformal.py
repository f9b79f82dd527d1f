"""Conformal prediction sets: sets of classes that hold the true one at a wanted rate.

Split conformal prediction (Papadopoulos et al. 2002; Vovk et al. 2005): images with labels that the
model was not trained on calibrate a threshold. If they and a new image are exchangeable, the set of
the new image holds its true class with a chance of at least the wanted coverage, whatever the model.

Pure functions of probabilities (N, K) and labels (N,).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from stresslens.core.answers import answered
from stresslens.core.draws import Draws
from stresslens.metrics.classification import Labels
from stresslens.metrics.intervals import Floats

SetScore: TypeAlias = Literal["lac", "aps", "raps"]
SET_SCORES: tuple[SetScore, ...] = ("lac", "aps", "raps")
ROUNDING = 1e-9
"""(n + 1) · 0.95 may lie this far above the whole number that it is."""
CALIBRATION_DRAWS, IMAGE_DRAWS = 1, 2
"""Seeds of the random numbers of APS and RAPS: of images that calibrate, and of others."""
TUNING_SHARE, MOST_TUNING, TUNING_VALUES = 5, 1000, 2**18
"""One in so many calibration images, at most so many of them, and at most so many of their
probabilities in all, choose the parameters of RAPS."""
PENALTIES = (0.0, 0.001, 0.01, 0.1, 0.2, 0.5)
"""The penalties that RAPS chooses from."""
USUAL_PENALTY, USUAL_RANK = 0.01, 5
"""The parameters of RAPS where there are too few images to choose them."""
VALUES = 2**22
"""Probabilities that are sorted at a time."""


def conformal_quantile(scores: Floats, coverage: float) -> float:
    """The ⌈(n + 1) · coverage⌉-th smallest of n scores (n,); infinite where that is more than n."""
    rank = math.ceil((len(scores) + 1) * coverage - ROUNDING)
    return math.inf if rank > len(scores) else float(np.partition(scores, rank - 1)[rank - 1])


def fewest_calibration_images(coverage: float) -> int:
    """The number of calibration images below which every set holds every class."""
    return math.ceil(coverage / (1 - coverage) - ROUNDING)


def expected_coverage(n: int, coverage: float, *, level: float = 0.95) -> tuple[float, float]:
    """The bounds between which the coverage of sets that n images calibrate lies in a share `level` of
    draws of these images, for scores without ties: a beta distribution (Vovk 2012). With too few
    images, (1, 1)."""
    from scipy.special import betaincinv

    rank = math.ceil((n + 1) * coverage - ROUNDING)
    if rank > n:
        return 1.0, 1.0
    low, high = (float(betaincinv(rank, n + 1 - rank, q)) for q in (0.5 - level / 2, 0.5 + level / 2))
    return low, high


def uniform_of(index: NDArray[np.int64], seed: int) -> Floats:
    """(N,) a number in [0, 1) for each image, the same in every call."""
    return Draws(seed, torch.from_numpy(index)).uniform().double().numpy()


def row_keys(probabilities: Floats) -> NDArray[np.int64]:
    """(N,) keys of rows of probabilities (N, K), by their values and places: random numbers by place alone
    would be the same for every model, and their luck that of every calibration."""
    n, k = probabilities.shape
    odd = np.arange(1, k + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) | np.uint64(1)
    bits = np.ascontiguousarray(probabilities, dtype=np.float64).view(np.uint64)
    places = np.arange(n, dtype=np.uint64) * np.uint64(0xBF58476D1CE4E5B9)
    return np.asarray((bits * odd).sum(1, dtype=np.uint64) + places).view(np.int64)


@dataclass(frozen=True)
class CalibrationScores:
    """All that prediction sets and thresholds need of n calibration images with an answer.

    The last images, `len(tuning)` of them, choose the parameters of RAPS.
    """

    labels: Labels
    """(n,) the true classes."""
    of_label: Floats
    """(n,) the probability of the true class."""
    above: Floats
    """(n,) the probabilities of the classes that rank higher, added up."""
    rank: Labels
    """(n,) the rank of the true class, from 1."""
    confidence: Floats
    """(n,) the highest probability."""
    u: Floats
    """(n,) the random numbers of APS and RAPS."""
    tuning: Floats
    """(m, K) probabilities in descending order."""

    @staticmethod
    def of(probabilities: Floats, labels: Labels) -> CalibrationScores:
        """From probabilities (N, K) and labels (N,); images without an answer are left out. The order
        of the images is drawn anew, with a fixed seed."""
        known = np.flatnonzero(answered(probabilities))
        rows = known[np.random.default_rng(0).permutation(len(known))]
        k, n = probabilities.shape[1], len(rows)
        of_label, above, confidence = np.empty(n), np.empty(n), np.empty(n)
        rank, m = np.empty(n, np.int64), min(n // TUNING_SHARE, MOST_TUNING, TUNING_VALUES // k)
        for piece in _pieces(n, k):
            p, truth = probabilities[rows[piece]], labels[rows[piece], None]
            ranks, sums = _ranked(p)
            of_label[piece], above[piece], rank[piece] = (
                np.take_along_axis(values, truth, 1)[:, 0] for values in (p, sums, ranks)
            )
            confidence[piece] = p.max(1)
        tuning = -np.sort(-probabilities[rows[n - m :]], axis=1)
        u = uniform_of(row_keys(probabilities)[rows], CALIBRATION_DRAWS)
        return CalibrationScores(labels[rows], of_label, above, rank, confidence, u, tuning)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def right(self) -> NDArray[np.bool_]:
        """(n,) whether the most probable class is the true one."""
        return np.asarray(self.rank == 1)


@dataclass(frozen=True)
class SetRule:
    """How the classes of an image are scored; a set holds those with a score up to a threshold.

    - lac: 1 - p, the least ambiguous sets (Sadinle, Lei & Wasserman 2019): the smallest on average.
    - aps: the probabilities of the classes that rank higher, and a random part of its own (Romano,
      Sesia & Candès 2020): sets grow where an image is hard.
    - raps: the same with `penalty` for each rank beyond `rank` (Angelopoulos et al. 2021).

    With `by_class` each class has a threshold of its own, from images of that class (Mondrian; Vovk
    et al. 2005): the coverage then holds in every class. Without `randomised`, APS and RAPS count all
    of a class's own probability: larger sets, the same for equal images. Where `penalty` and `rank`
    are None, a part of the calibration images chooses them.
    """

    score: SetScore = "lac"
    by_class: bool = False
    randomised: bool = True
    penalty: float | None = None
    rank: int | None = None

    @property
    def name(self) -> str:
        return f"{self.score.upper()}{' by class' if self.by_class else ''}"


@dataclass(frozen=True)
class PredictionSets:
    """A rule whose thresholds are calibrated."""

    rule: SetRule
    coverage: float
    thresholds: Floats
    """(K,) the largest score that is in a set, by class."""
    n: NDArray[np.int64]
    """(K,) the images that calibrated each threshold."""

    @property
    def unbounded(self) -> list[int]:
        """The classes that are in every set, because too few images calibrate their threshold."""
        return [int(k) for k in np.flatnonzero(np.isposinf(self.thresholds))]

    def of(self, probabilities: Floats, u: Floats) -> NDArray[np.bool_]:
        """(N, K) whether each class is in the set of each image. `u` (N,) are uniform random numbers.

        An image without an answer has the set of all classes.
        """
        inside = np.ones(probabilities.shape, bool)
        for piece in _pieces(*probabilities.shape):
            p = probabilities[piece]
            known = answered(p)
            inside[piece][known] = self._of(p[known], u[piece][known])
        return inside

    def _of(self, p: Floats, u: Floats) -> NDArray[np.bool_]:
        if self.rule.score == "lac":
            return np.asarray(1 - p <= self.thresholds)
        ranks, above = _ranked(p)
        return np.asarray(_score(self.rule, p, above, ranks, u[:, None]) <= self.thresholds)


def calibrated_sets(kept: CalibrationScores, coverage: float, rule: SetRule, classes: int) -> PredictionSets:
    """The thresholds of a rule for a coverage in (0, 1), over `classes` classes."""
    n = len(kept)
    if rule.score == "raps" and (rule.penalty is None or rule.rank is None):
        rule, n = _chosen(kept, coverage, rule)
    scores = _score(rule, kept.of_label[:n], kept.above[:n], kept.rank[:n], kept.u[:n])
    if not rule.by_class:
        threshold = conformal_quantile(scores, coverage)
        return PredictionSets(rule, coverage, np.full(classes, threshold), np.full(classes, n))
    of_class = [scores[kept.labels[:n] == k] for k in range(classes)]
    thresholds = np.array([conformal_quantile(each, coverage) for each in of_class])
    return PredictionSets(rule, coverage, thresholds, np.array([len(each) for each in of_class]))


def _chosen(kept: CalibrationScores, coverage: float, rule: SetRule) -> tuple[SetRule, int]:
    """RAPS with the penalty and the rank that give the smallest sets of the tuning images, and the number
    of images that are left to calibrate; or the usual ones, and all images, if too few would be left.

    The rank is that which the true class does not exceed at the wanted rate (Angelopoulos et al. 2021,
    appendix E).
    """
    n, m = len(kept), len(kept.tuning)
    fewest = fewest_calibration_images(coverage)
    if m < fewest or n - m < fewest:
        return _with_parameters(rule, USUAL_PENALTY, USUAL_RANK), n
    ranks, u = kept.rank[n - m :], kept.u[n - m :]
    rank = rule.rank if rule.rank is not None else int(conformal_quantile(ranks.astype(float), coverage))
    above = kept.tuning.cumsum(1) - kept.tuning
    places = np.arange(1, kept.tuning.shape[1] + 1)
    best, smallest = PENALTIES[0], math.inf
    for penalty in PENALTIES if rule.penalty is None else (rule.penalty,):
        tried = _with_parameters(rule, penalty, rank)
        own = _score(tried, kept.of_label[n - m :], kept.above[n - m :], ranks, u)
        scores = _score(tried, kept.tuning, above, places, u[:, None])
        size = float((scores <= conformal_quantile(own, coverage)).sum(1).mean())
        if size < smallest:
            best, smallest = penalty, size
    return _with_parameters(rule, best, rank), n - m


def _with_parameters(rule: SetRule, penalty: float, rank: int) -> SetRule:
    return replace(
        rule,
        penalty=penalty if rule.penalty is None else rule.penalty,
        rank=rank if rule.rank is None else rule.rank,
    )


def _score(rule: SetRule, own: Floats, above: Floats, rank: Labels, u: Floats) -> Floats:
    """The scores of classes with the probability `own`, of a rank, below others that add up to `above`."""
    if rule.score == "lac":
        return np.asarray(1 - own)
    part = above + (u * own if rule.randomised else own)
    if rule.score == "aps" or rule.penalty is None or rule.rank is None:
        return np.asarray(part)
    return np.asarray(part + rule.penalty * np.maximum(rank - rule.rank, 0))


def _ranked(p: Floats) -> tuple[Labels, Floats]:
    """(N, K) the rank of each class, from 1, and the sum of the probabilities of those that rank higher.
    Of equal probabilities, the class with the lower number ranks first."""
    order = np.argsort(-p, axis=1, kind="stable")
    ordered = np.take_along_axis(p, order, 1)
    ranks, above = np.empty(p.shape, np.int64), np.empty(p.shape)
    np.put_along_axis(ranks, order, np.arange(1, p.shape[1] + 1)[None, :].repeat(len(p), 0), 1)
    np.put_along_axis(above, order, np.cumsum(ordered, 1) - ordered, 1)
    return ranks, above


def _pieces(n: int, k: int) -> Sequence[slice]:
    size = max(1, VALUES // k)
    return [slice(start, start + size) for start in range(0, n, size)]
