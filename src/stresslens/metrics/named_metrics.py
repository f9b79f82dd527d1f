"""The metrics that runs are compared by: the functions of `measures`.

A new metric is a row of `measures.MEASURES` and one of `METRICS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from stresslens.core.answers import answered, predicted
from stresslens.core.errors import ConfigError
from stresslens.core.spelling import closest
from stresslens.core.types import Estimate
from stresslens.metrics import calibration, classification, ranking
from stresslens.metrics.classification import Labels, confusion_matrix, in_top_k
from stresslens.metrics.image_values import f1_values, recall_values
from stresslens.metrics.intervals import Floats, bounded_mean
from stresslens.metrics.measures import CALIBRATED, Measure, k_of, measure_of


@dataclass(frozen=True)
class Metric:
    """A metric of scores (N, K) and labels (N,).

    `values` gives (N,) values of the images whose mean is the metric (`image_values`); `estimate` the
    metric of one model, with its interval. Both get what the metric `needs`: any scores where the
    answers suffice; scores or probabilities where their order is needed; else logits, divided by the
    run's temperature if `calibrated`. Where an image has no answer the metric has no value, unless it
    `counts_no_answer`. `bias` gives about how much noise adds to it, of a metric that few images make
    too large. `whole` is the largest difference that one image can make to its value, for images of
    which nothing is known, and `unseen` the difference of rare images that may be larger than all that
    were seen (`paired_values`).
    """

    measure: Measure
    values: Callable[[Floats, Labels], Floats]
    estimate: Callable[[Floats, Labels], Estimate]
    needs: Literal["answers", "order", "probabilities"] = "answers"
    counts_no_answer: bool = True
    bias: Callable[[Floats, Labels], float] | None = None
    whole: float = 1.0
    unseen: float = 0.0

    @property
    def calibrated(self) -> bool:
        return self.measure.name.endswith(CALIBRATED)

    @property
    def is_share_of_images(self) -> bool:
        """Whether each image counts 0 or 1."""
        return self.measure.name == "accuracy" or k_of(self.measure.name) is not None


def _recall(scores: Floats, labels: Labels) -> Floats:
    return recall_values(predicted(scores) == labels, labels, np.unique(labels))


def _macro_f1(scores: Floats, labels: Labels) -> Floats:
    return f1_values(predicted(scores), labels, np.unique(labels))


def _auroc(scores: Floats, labels: Labels) -> Floats:
    return ranking.auroc_values(scores, labels, np.unique(labels))


def _probabilities(logits: Floats) -> Floats:
    return np.exp(classification.log_softmax(logits))


def _brier(logits: Floats, labels: Labels) -> Floats:
    known, values = answered(logits), np.full(len(labels), 2.0)
    values[known] = calibration.brier_of_each(_probabilities(logits[known]), labels[known])
    return values


def _top(k: int) -> Callable[[Floats, Labels], Floats]:
    return lambda scores, labels: np.asarray(in_top_k(scores, labels, k), float)


METRICS: Mapping[str, Metric] = {
    metric.measure.name: metric
    for metric in (
        Metric(
            measure_of("accuracy"),
            lambda scores, labels: np.asarray(predicted(scores) == labels, float),
            classification.accuracy,
        ),
        Metric(
            measure_of("balanced_accuracy"),
            _recall,
            lambda scores, labels: classification.balanced_accuracy(confusion_matrix(scores, labels)),
        ),
        Metric(
            measure_of("macro_f1"),
            _macro_f1,
            lambda scores, labels: classification.averages(scores, labels)["macro"]["f1"],
        ),
        Metric(
            measure_of("auroc"),
            _auroc,
            lambda scores, labels: ranking.auroc(scores, labels).mean,
            needs="order",
            counts_no_answer=False,
        ),
        Metric(
            measure_of("brier"),
            _brier,
            lambda logits, labels: bounded_mean(_brier(logits, labels), (0.0, 2.0)),
            needs="probabilities",
            whole=2.0,
        ),
        Metric(
            measure_of("ece"),
            lambda logits, labels: calibration.ece_values(_probabilities(logits), labels),
            lambda logits, labels: calibration.ece(_probabilities(logits), labels),
            needs="probabilities",
            counts_no_answer=False,
            bias=lambda logits, labels: calibration.ece_bias(_probabilities(logits), labels),
        ),
        Metric(
            measure_of("cross_entropy"),
            classification.cross_entropy_of_each,
            classification.cross_entropy,
            needs="probabilities",
            counts_no_answer=False,
        ),
    )
}
"""Those that need nothing but a name. `metric_named` makes the others: of a class (`f1@CLASS`,
`auroc@CLASS`), of k (`top5`), of a matrix of costs (`cost`), and after temperature scaling
(`brier_calibrated`)."""


def metric_named(name: str, labels: Labels, classes: Sequence[str], costs: Floats | None = None) -> Metric:
    """The metric of a name, for images with labels (N,) of these classes (K); `costs` (K, K) are those
    of `cost`, by true and predicted class.

    Raises ConfigError for a name that is none, and for a metric that these images do not have.
    """
    measure = measure_of(name)
    if name == "cost":
        if costs is None:
            raise ConfigError("--metric cost needs the costs of errors; give them with --costs FILE")
        return _cost_metric(measure, costs)
    if (k := k_of(name)) is not None:
        if k >= len(classes):
            raise ConfigError(f"{name} is always 100 % of {len(classes)} classes; use accuracy")
        top = _top(k)
        return Metric(measure, top, lambda scores, y: classification.top_k(scores, y, k), needs="order")
    base, sizes = name.removesuffix(CALIBRATED), np.unique(labels, return_counts=True)[1]
    if base in METRICS:
        if base == "auroc" and len(sizes) < 2:
            raise ConfigError("auroc ranks images of different classes, and these are all of one class")
        found = replace(METRICS[base], measure=measure)
        by_class = base in ("balanced_accuracy", "macro_f1", "auroc")
        return replace(found, whole=len(labels) / (len(sizes) * int(sizes.min()))) if by_class else found
    kind, _, of = name.partition("@")
    return _class_metric(measure, kind, _class_of(of, classes), labels, of)


def _class_metric(measure: Measure, kind: str, k: int, labels: Labels, of: str) -> Metric:
    one, images = np.array([k]), int((labels == k).sum())
    if not images:
        raise ConfigError(f"{measure.name}: none of the {len(labels):,} images is of the class {of}")
    if kind == "f1":
        return Metric(
            measure,
            lambda scores, y: f1_values(predicted(scores), y, one),
            lambda scores, y: classification.f1_scores(confusion_matrix(scores, y))[k],
            whole=len(labels) / images,
        )
    if images == len(labels):
        raise ConfigError(f"{measure.name}: all of the {len(labels):,} images are of the class {of}")
    return Metric(
        measure,
        lambda scores, y: ranking.auroc_values(scores, y, one),
        lambda scores, y: ranking.auroc(scores, y).each[k],
        needs="order",
        counts_no_answer=False,
        whole=len(labels) / min(images, len(labels) - images),
    )


def _class_of(of: str, classes: Sequence[str]) -> int:
    """The number of a class, by its name or else its number."""
    if of in classes:
        return classes.index(of)
    if of.isdigit() and int(of) < len(classes):
        return int(of)
    raise ConfigError(f"there is no class {of!r}; {closest(of, list(classes))}")


def _cost_metric(measure: Measure, costs: Floats) -> Metric:
    worst = np.append(costs, costs.max(1, keepdims=True), 1)  # no answer, -1, costs the most

    def values(scores: Floats, labels: Labels) -> Floats:
        return np.asarray(worst[labels, predicted(scores)])

    ends = float(costs.min()), float(costs.max())
    return Metric(
        replace(measure, ends=ends),
        values,
        lambda scores, y: bounded_mean(values(scores, y), ends),
        whole=ends[1],
        unseen=ends[1] / 2,
    )
