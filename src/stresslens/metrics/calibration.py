"""Calibration and selective prediction: ECE, Brier score, reliability, temperature, risk-coverage.

Pure functions of probabilities or logits (N, K) and labels (N,).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from stresslens.core.answers import answered, predicted
from stresslens.core.types import Estimate
from stresslens.metrics.classification import FEWEST_WRONG, Labels, cross_entropy_of_each
from stresslens.metrics.intervals import Floats, bounded_mean, logit_normal, mean_bounds, wilson

BINS = 15
LOG_TEMPERATURES = np.linspace(-18.0, 18.0, 37)
"""Where the search for a temperature begins: scores may have any scale."""
PRIOR = math.log(2)
"""Half of the prior of a temperature (a Cauchy distribution of its logarithm) lies between 1/2 and
2. Its pull towards 1 is at most that of 1 / log 2 = 1.4 nats for a factor of e, so a few images
overrule it; where all are right, nothing else keeps the temperature from 0."""
FOLDS = 5


def brier(probabilities: Floats, labels: Labels) -> Estimate:
    """Brier score: mean squared distance between probabilities and one-hot labels (Brier 1950), 0
    to 2.

    It is summed over the classes. For two classes it is twice scikit-learn's `brier_score_loss`,
    which counts one class. The interval allows for one more image of the worst score, 2.
    """
    return bounded_mean(brier_of_each(probabilities, labels), (0.0, 2.0))


def brier_of_each(probabilities: Floats, labels: Labels) -> Floats:
    """(N,) squared distance between the probabilities and the one-hot label, 0 to 2."""
    of_label = np.take_along_axis(probabilities, labels[:, None], 1)[:, 0]
    return np.asarray(np.square(probabilities).sum(1) - 2 * of_label + 1)


@dataclass(frozen=True)
class Bin:
    """The images whose highest probability is in (low, high].

    `n` is their number, `confidence` the mean of that probability (NaN without images), and
    `accuracy` the share that is classified correctly.
    """

    low: float
    high: float
    n: int
    confidence: float
    accuracy: Estimate


def reliability(probabilities: Floats, labels: Labels, *, bins: int = BINS) -> list[Bin]:
    """The reliability curve: bins of equal width over the highest probability.

    Each bin has its accuracy with Wilson's interval.
    """
    confidence, correct = probabilities.max(1), predicted(probabilities) == labels
    bin_of = _bin_of(confidence, bins)
    counts = np.bincount(bin_of, minlength=bins)
    hits = np.bincount(bin_of, weights=correct, minlength=bins)
    sums = np.bincount(bin_of, weights=confidence, minlength=bins)
    return [
        Bin(
            k / bins,
            (k + 1) / bins,
            int(n),
            float(sums[k] / n) if n else math.nan,
            wilson(int(hits[k]), int(n)),
        )
        for k, n in enumerate(counts)
    ]


def _bin_of(confidence: Floats, bins: int) -> Labels:
    return np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)


def ece(probabilities: Floats, labels: Labels, *, bins: int = BINS, level: float = 0.95) -> Estimate:
    """Expected calibration error (ECE) over bins of equal width: Σ n_b/N |acc_b - conf_b|.

    The confidence is the highest probability (Guo et al. 2017). The estimate is biased upwards,
    because noise in a bin always adds to it. The interval corrects this: the ECE that noise alone
    would give under perfect calibration is subtracted from its lower end, so that it covers the
    error of the population, also 0. Both ends allow for one more image that is wrong at full
    confidence (`mean_bounds`): where all answers are right, they say little of how sure the rare
    wrong ones are.
    """
    from scipy.special import ndtri

    n, method = len(labels), "Gaffke, bias-aware"
    if n == 0:
        return Estimate(math.nan, 0.0, 1.0, 0, method, level)
    gaps, variances = _gaps(probabilities, labels, bins)
    value, z = float(np.abs(gaps).sum()), float(ndtri(0.5 + level / 2))
    noise = math.sqrt(2 / math.pi) * float(np.sqrt(variances).sum()) + z * math.sqrt(
        (1 - 2 / math.pi) * float(variances.sum())
    )
    low, high = mean_bounds(ece_values(probabilities, labels, bins=bins), (-1.0, 1.0), level=level)
    return Estimate(
        value, max(0.0, min(low, value - noise)), min(1.0, max(high, -low, value)), n, method, level
    )


def ece_values(probabilities: Floats, labels: Labels, *, bins: int = BINS) -> Floats:
    """(N,) confidence minus 1 for a right answer, with the sign of the image's bin, in [-1, 1]: their
    mean is the ECE."""
    confidence, surplus = _surplus(probabilities, labels)
    bin_of = _bin_of(confidence, bins)
    return np.asarray(np.where(np.bincount(bin_of, weights=surplus) < 0, -1.0, 1.0)[bin_of] * surplus)


def ece_bias(probabilities: Floats, labels: Labels, *, bins: int = BINS) -> float:
    """About how much noise adds to the ECE: in each bin the mean of |gap + normal noise| minus the
    gap. The gap is taken to be one standard error smaller than observed, because noise is in it
    too."""
    from scipy.special import ndtr

    gaps, variances = _gaps(probabilities, labels, bins)
    error = np.sqrt(variances)
    gap = np.maximum(np.abs(gaps) - error, 0.0)
    z = gap / np.maximum(error, 1e-300)
    added = error * math.sqrt(2 / math.pi) * np.exp(-np.square(z) / 2) - 2 * gap * ndtr(-z)
    return float(added.sum())


def _surplus(probabilities: Floats, labels: Labels) -> tuple[Floats, Floats]:
    """(N,) the highest probability, and that minus 1 for a right answer."""
    confidence = probabilities.max(1)
    return confidence, confidence - (predicted(probabilities) == labels)


def _gaps(probabilities: Floats, labels: Labels, bins: int) -> tuple[Floats, Floats]:
    """(bins,) confidence minus accuracy times the bin's share of the images, and its variance: as
    observed, or as perfect calibration would give, because right answers alone show none."""
    n = len(labels)
    confidence, surplus = _surplus(probabilities, labels)
    bin_of = _bin_of(confidence, bins)
    gaps, squares, expected = (
        np.bincount(bin_of, weights=weights, minlength=bins) / n
        for weights in (surplus, np.square(surplus), confidence * (1 - confidence))
    )
    return gaps, np.maximum(squares - np.square(gaps), expected) / n


@dataclass(frozen=True)
class Temperature:
    """A fitted temperature with its interval, and whether it helps.

    `gain` is the cross-entropy of the raw logits minus that of logits divided by a temperature
    fitted on other images, in nats (cross-validation).
    """

    fitted: Estimate
    gain: float
    helps: bool

    @property
    def used(self) -> float:
        """The temperature to divide the logits by: 1 where the fitted one does not help."""
        return self.fitted.value if self.helps else 1.0


def fit_temperature(logits: Floats, labels: Labels) -> float:
    """Temperature scaling: the T to divide the logits by, or 1 where none was shown to help
    (`temperature_scaling`)."""
    return temperature_scaling(logits, labels).used


def temperature_scaling(logits: Floats, labels: Labels, *, level: float = 0.95) -> Temperature:
    """The T that minimises the cross-entropy of softmax(logits / T), shrunk towards 1 (`PRIOR`).

    See Guo et al. (2017). The interval is by profile likelihood; with fewer than `FEWEST_WRONG`
    wrong answers it has no upper end, because nothing shows how sure a wrong answer is.

    T helps if it lowers the cross-entropy of images that it was not fitted on (`FOLDS` folds), and
    one image does not decide this: not with one more wrong answer, as sure as the others on
    average, and not without the image that gains most. A split that is answered right throughout
    makes every sharpening look good; one answer that is wrong, every softening.
    """
    from scipy.optimize import brentq
    from scipy.special import ndtri

    # a label that the model rules out (-inf) has no probability at any temperature
    rows = np.isfinite(np.take_along_axis(logits, labels[:, None], 1)[:, 0])
    logits, labels = logits[rows], labels[rows]
    n = len(labels)
    if n < 2:
        return Temperature(Estimate(1.0, 0.0, math.inf, n, "profile likelihood", level), 0.0, helps=False)
    started = np.stack([cross_entropy_of_each(logits / math.exp(at), labels) for at in LOG_TEMPERATURES])
    best = _log_temperature(logits, labels, started)

    def excess(at: float) -> float:
        return _penalised(logits, labels, at) - lowest

    lowest = _penalised(logits, labels, best) + float(ndtri(0.5 + level / 2)) ** 2 / 2
    ends = [
        float(brentq(excess, best, limit, xtol=1e-3)) if excess(limit) > 0 else math.copysign(math.inf, limit)
        for limit in (-40.0, 40.0)
    ]
    low, high = (math.exp(end) for end in ends)
    high = math.inf if (predicted(logits) != labels).sum() < FEWEST_WRONG else high
    fitted = Estimate(math.exp(best), low, high, n, "profile likelihood", level)
    gains, if_wrong = _out_of_fold(logits, labels, started)
    total = float(gains.sum())
    one_more, one_less = total + float(if_wrong.mean()), total - max(0.0, float(gains.max()))
    return Temperature(fitted, total / n, helps=min(total, one_more, one_less) > 0)


def _penalised(logits: Floats, labels: Labels, at: float) -> float:
    """The cross-entropy summed over the images at a log temperature, minus the log of the prior."""
    losses = cross_entropy_of_each(logits / math.exp(at), labels)
    return float(losses.sum()) + math.log1p((at / PRIOR) ** 2)


def _log_temperature(logits: Floats, labels: Labels, started: Floats, *, within: float = 1e-5) -> float:
    """The best log temperature; `started` (37, N) are the losses at `LOG_TEMPERATURES`."""
    from scipy.optimize import minimize_scalar

    first = int((started.sum(1) + np.log1p(np.square(LOG_TEMPERATURES / PRIOR))).argmin())
    around = float(LOG_TEMPERATURES[first])
    found = minimize_scalar(
        lambda at: _penalised(logits, labels, at),
        bounds=(around - 1, around + 1),
        method="bounded",
        options={"xatol": within},
    )
    return float(found.x)


def _out_of_fold(logits: Floats, labels: Labels, started: Floats) -> tuple[Floats, Floats]:
    """(N,) by how much a temperature fitted on the other folds lowers each image's cross-entropy,
    and (N,) the same for a wrong answer: the image's own, or, if it is right, the second class."""
    n = len(labels)
    fold = np.random.default_rng(0).permutation(n) % FOLDS
    of_label = np.arange(logits.shape[1]) == labels[:, None]
    second = predicted(np.where(of_label, -np.inf, logits))
    wrong = np.where(predicted(logits) == labels, second, labels)
    gains = np.zeros((2, n))
    for k in range(min(FOLDS, n)):
        rest, held_out = fold != k, fold == k
        at = _log_temperature(logits[rest], labels[rest], started[:, rest], within=1e-2)
        scaled, raw = logits[held_out] / math.exp(at), logits[held_out]
        for row, truth in enumerate((labels[held_out], wrong[held_out])):
            before, after = (cross_entropy_of_each(each, truth) for each in (raw, scaled))
            # a class that is ruled out costs the same at every temperature
            before, after = (np.where(np.isfinite(before), each, 0.0) for each in (before, after))
            gains[row, held_out] = before - after
    return gains[0], gains[1]


def risk_coverage(scores: Floats, labels: Labels, *, points: int = 101) -> tuple[Floats, Floats]:
    """The risk-coverage curve (El-Yaniv & Wiener 2010), as (coverage, risk).

    The risk is the share of errors among the share `coverage` of the images that have the highest
    top scores. Of the N steps at most `points` are returned, evenly spaced; the last is that of all
    images. Images with equal scores are averaged, so their order does not matter.
    """
    n = len(labels)
    risk = _risk(*_by_confidence(scores, labels))
    parts = max(1, min(points, n))
    steps = -(-n * np.arange(1, min(points, n) + 1) // parts)
    return steps / n, risk[steps - 1]


def aurc(scores: Floats, labels: Labels) -> Estimate:
    """Area under the risk-coverage curve (Geifman & El-Yaniv 2017): 0 to 1, lower is better.

    It is the mean of the curve's N steps. The interval is by influence functions. If all images are
    correct, or all wrong, it is Wilson's interval of the share of errors.
    """
    n = len(labels)
    wrong, group = _by_confidence(scores, labels)
    errors = int(wrong.sum())
    if errors in (0, n):
        return wilson(errors, n)
    risk = _risk(wrong, group)
    value = float(risk.mean())
    rank = np.arange(1, n + 1)
    weight, drag = (_group_mean(np.cumsum(term[::-1])[::-1], group) for term in (1 / rank, risk / rank))
    return logit_normal(value, _group_mean(risk, group) - value + wrong * weight - drag)


def _by_confidence(scores: Floats, labels: Labels) -> tuple[Floats, Labels]:
    """(N,) 1 for each error, in descending order of the top score, and (N,) the group of equal
    scores. Images without an answer come last."""
    top = np.where(answered(scores), scores.max(1), -np.inf)
    order = np.argsort(-top, kind="stable")
    wrong, top = (predicted(scores) != labels)[order].astype(float), top[order]
    return wrong, np.cumsum(np.append(False, top[1:] != top[:-1]))[: len(top)]


def _group_mean(values: Floats, group: Labels) -> Floats:
    """(N,) the mean of each value's group."""
    return (np.bincount(group, weights=values) / np.bincount(group))[group]


def _risk(wrong: Floats, group: Labels) -> Floats:
    return np.cumsum(_group_mean(wrong, group)) / np.arange(1, len(wrong) + 1)
