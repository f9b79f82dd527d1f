"""Calibration and selective prediction: ECE, Brier score, reliability, temperature, risk-coverage.

Pure functions of probabilities or logits (N, K) and labels (N,).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from stresslens.core.answers import answered, predicted
from stresslens.core.types import Estimate
from stresslens.metrics.classification import Labels, cross_entropy_of_each
from stresslens.metrics.intervals import Floats, bootstrap_mean, logit_normal, wilson

BINS = 15
TEMPERATURES = (0.05, 20.0)
"""The bounds of the temperature. If every image is classified correctly there is no optimum, and
the result is the lower bound."""


def brier(probabilities: Floats, labels: Labels) -> Estimate:
    """Brier score: mean squared distance between probabilities and one-hot labels (Brier 1950), 0
    to 2.

    It is summed over the classes. For two classes it is twice scikit-learn's `brier_score_loss`,
    which counts one class.
    """
    of_label = np.take_along_axis(probabilities, labels[:, None], 1)[:, 0]
    return bootstrap_mean(np.square(probabilities).sum(1) - 2 * of_label + 1)


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
    error of the population, also 0.
    """
    from scipy.special import ndtri

    n = len(labels)
    if n == 0:
        return Estimate(math.nan, 0.0, 1.0, 0, "normal, bias-aware", level)
    confidence = probabilities.max(1)
    surplus = confidence - (predicted(probabilities) == labels)  # (N,)
    bin_of = _bin_of(confidence, bins)
    gaps = np.bincount(bin_of, weights=surplus, minlength=bins) / n
    squares = np.bincount(bin_of, weights=np.square(surplus), minlength=bins) / n
    variances = np.maximum(squares - np.square(gaps), 0) / n
    value, z = float(np.abs(gaps).sum()), float(ndtri(0.5 + level / 2))
    spread = float((np.sign(gaps)[bin_of] * surplus).std()) / math.sqrt(n)
    noise = math.sqrt(2 / math.pi) * float(np.sqrt(variances).sum()) + z * math.sqrt(
        (1 - 2 / math.pi) * float(variances.sum())
    )
    return Estimate(
        value, max(0.0, value - noise), min(1.0, value + z * spread), n, "normal, bias-aware", level
    )


def fit_temperature(logits: Floats, labels: Labels) -> float:
    """Temperature scaling: the T that minimises the cross-entropy of softmax(logits / T).

    T is within `TEMPERATURES` (Guo et al. 2017). The cross-entropy is convex in 1/T, so a bounded
    one-dimensional search finds its only optimum.
    """
    from scipy.optimize import minimize_scalar

    def loss(log_temperature: float) -> float:
        return float(cross_entropy_of_each(logits / math.exp(log_temperature), labels).mean())

    low, high = (math.log(bound) for bound in TEMPERATURES)
    return math.exp(minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-4}).x)


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
