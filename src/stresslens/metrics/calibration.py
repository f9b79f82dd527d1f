"""How far probabilities can be believed: pure functions of probabilities or logits (N, K) and labels (N,)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from stresslens.core.types import Estimate
from stresslens.metrics.classification import Labels, cross_entropy_of_each, predicted
from stresslens.metrics.intervals import Floats, bootstrap_mean, logit_normal, wilson

BINS = 15
TEMPERATURES = (0.05, 20.0)
"""Where a temperature is looked for; images that are separated without an error have no optimum,
and end at the lower bound."""


def brier(probabilities: Floats, labels: Labels) -> Estimate:
    """Mean squared distance between the probabilities and the truth as 0 or 1, summed over the
    classes (Brier 1950): 0 to 2.

    Of two classes this is twice scikit-learn's `brier_score_loss`, which counts one of them.
    """
    own = np.take_along_axis(probabilities, labels[:, None], 1)[:, 0]
    return bootstrap_mean(np.square(probabilities).sum(1) - 2 * own + 1)


@dataclass(frozen=True)
class Bin:
    """Images whose highest probability lies in (low, high]: how many, its mean (NaN of none), and
    the share that is right."""

    low: float
    high: float
    n: int
    confidence: float
    accuracy: Estimate


def reliability(probabilities: Floats, labels: Labels, *, bins: int = BINS) -> list[Bin]:
    """The reliability curve: bins of equal width over the highest probability, each with Wilson's
    interval of its accuracy."""
    confidence, right = probabilities.max(1), predicted(probabilities) == labels
    place = _bin_of(confidence, bins)
    counts = np.bincount(place, minlength=bins)
    hits = np.bincount(place, weights=right, minlength=bins)
    sums = np.bincount(place, weights=confidence, minlength=bins)
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
    """Expected calibration error of the highest probability over bins of equal width (Guo et al.
    2017): Σ n_b/N |acc_b - conf_b|.

    The estimate is biased upwards, for noise in a bin counts whichever way it points. The interval
    says so: what noise alone would leave of perfect calibration is taken off its lower end, so that
    it covers the error of the population, also 0.
    """
    from scipy.special import ndtri

    n = len(labels)
    if n == 0:
        return Estimate(math.nan, 0.0, 1.0, 0, "normal, bias-aware", level)
    confidence = probabilities.max(1)
    surplus = confidence - (predicted(probabilities) == labels)  # (N,)
    place = _bin_of(confidence, bins)
    gaps = np.bincount(place, weights=surplus, minlength=bins) / n
    variances = (
        np.maximum(np.bincount(place, weights=np.square(surplus), minlength=bins) / n - np.square(gaps), 0)
        / n
    )
    value, z = float(np.abs(gaps).sum()), float(ndtri(0.5 + level / 2))
    spread = float((np.sign(gaps)[place] * surplus).std()) / math.sqrt(n)
    noise = math.sqrt(2 / math.pi) * float(np.sqrt(variances).sum()) + z * math.sqrt(
        (1 - 2 / math.pi) * float(variances.sum())
    )
    return Estimate(
        value, max(0.0, value - noise), min(1.0, value + z * spread), n, "normal, bias-aware", level
    )


def fit_temperature(logits: Floats, labels: Labels) -> float:
    """The T whose softmax(logits / T) makes the labels likeliest (Guo et al. 2017), within `TEMPERATURES`.

    The likelihood is convex in 1/T, so that a bounded search of one dimension finds its only optimum.
    """
    from scipy.optimize import minimize_scalar

    def loss(log_temperature: float) -> float:
        return float(cross_entropy_of_each(logits / math.exp(log_temperature), labels).mean())

    low, high = (math.log(bound) for bound in TEMPERATURES)
    return math.exp(minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-4}).x)


def risk_coverage(scores: Floats, labels: Labels, *, points: int = 101) -> tuple[Floats, Floats]:
    """(coverage, risk): the share of errors among the share `coverage` of the images with the
    highest top scores.

    At most `points` of the N steps, evenly spaced, the last of all images. Images with equal scores
    count in any order alike: each as the mean of them (El-Yaniv & Wiener 2010).
    """
    n = len(labels)
    risk = _risk(*_surest_first(scores, labels))
    parts = max(1, min(points, n))
    steps = -(-n * np.arange(1, min(points, n) + 1) // parts)
    return steps / n, risk[steps - 1]


def aurc(scores: Floats, labels: Labels) -> Estimate:
    """Area under the risk-coverage curve (Geifman & El-Yaniv 2017): the mean of its N steps, 0 to
    1, lower is better.

    Its interval is by influence functions; without an error, or without a success, Wilson's of the
    share of errors.
    """
    n = len(labels)
    wrong, group = _surest_first(scores, labels)
    errors = int(wrong.sum())
    if errors in (0, n):
        return wilson(errors, n)
    risk = _risk(wrong, group)
    value = float(risk.mean())
    rank = np.arange(1, n + 1)
    weight, drag = (_alike(np.cumsum(term[::-1])[::-1], group) for term in (1 / rank, risk / rank))
    return logit_normal(value, _alike(risk, group) - value + wrong * weight - drag)


def _surest_first(scores: Floats, labels: Labels) -> tuple[Floats, Labels]:
    """(N,) 1 for each error, in falling order of the top score, and (N,) which images are tied."""
    top = scores.max(1)
    order = np.argsort(-top, kind="stable")
    wrong = (predicted(scores) != labels)[order].astype(float)
    return wrong, np.cumsum(np.diff(top[order], prepend=top[order[:1]]) != 0)


def _alike(values: Floats, group: Labels) -> Floats:
    """Each value as the mean of its group."""
    return (np.bincount(group, weights=values) / np.bincount(group))[group]


def _risk(wrong: Floats, group: Labels) -> Floats:
    return np.cumsum(_alike(wrong, group)) / np.arange(1, len(wrong) + 1)
