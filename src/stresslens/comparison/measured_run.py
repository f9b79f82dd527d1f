"""A run's predictions on a split by a metric other than accuracy: values of images, and its estimate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeGuard

import numpy as np

from stresslens.comparison.cost_table import CostTable
from stresslens.comparison.difference import estimate_over_divisions
from stresslens.comparison.tested_run import Tested
from stresslens.core.answers import answered, predicted
from stresslens.core.errors import ConfigError
from stresslens.core.run_folder import RunFolder
from stresslens.core.text import counted
from stresslens.core.types import Estimate
from stresslens.evaluation.record import RunRecord, read_record
from stresslens.evaluation.scores import Predictions
from stresslens.metrics.intervals import Floats
from stresslens.metrics.named_metrics import Metric, metric_named
from stresslens.metrics.random_effects import over_seeds


@dataclass(frozen=True)
class Measured(Tested):
    """One run's predictions on a split by a `metric`: `values` (images,), whose mean it is, and its
    `estimate` for this run alone. `bias` is about how much noise adds to it."""

    metric: Metric
    values: Floats
    estimate: Estimate
    bias: float

    @property
    def measure(self) -> str:
        return self.metric.measure.words

    @property
    def figure(self) -> float:
        return float(self.values.mean())


Pair = tuple[Measured, Measured]


def is_measured(pair: tuple[Tested, Tested]) -> TypeGuard[Pair]:
    """Whether both runs were read by a metric other than accuracy."""
    return isinstance(pair[0], Measured) and isinstance(pair[1], Measured)


def measured_of(folder: RunFolder, split: str, name: str, costs: CostTable | None = None) -> Measured:
    """A run's saved predictions by the metric of a name; `costs` are those of `cost`.

    Raises UnreadableRun, and ConfigError, with the folder, as `predictions_by_metric` does.
    """
    try:
        return predictions_by_metric(folder, split, name, costs)
    except ConfigError as error:
        raise ConfigError(f"{folder.path}: {error}") from None


def predictions_by_metric(
    folder: RunFolder, split: str, name: str, costs: CostTable | None = None
) -> Measured:
    """As `measured_of`, with errors that do not name the folder.

    Metrics of probabilities get the softmax of the logits, those with the ending `_calibrated` of the
    logits divided by the temperature of the run's validation split; as in the run's scores. Raises
    UnreadableRun, and ConfigError where the metric is unknown or these predictions have none.
    """
    predictions = Predictions.of_arrays(folder.load_predictions(split))
    labels, record = predictions.labels, read_record(folder)
    width = predictions.scores.shape[1]
    classes = [*record.classes, *map(str, range(len(record.classes), width))][:width]
    metric = metric_named(name, labels, classes, None if costs is None else costs.matrix(classes))
    given = _given(metric, predictions, record)
    _check_answers(metric, predictions)
    values = metric.values(given, labels)
    if not np.isfinite(values).all():
        worst = counted(int((~np.isfinite(values)).sum()), "image")
        raise ConfigError(
            f"{name} is infinite: the scores rule out the true class of {worst} (-inf); use brier"
        )
    bias = 0.0 if metric.bias is None else metric.bias(given, labels)
    right = predicted(predictions.scores) == labels
    return Measured(right, labels, split, record, metric, values, metric.estimate(given, labels), bias)


def _given(metric: Metric, predictions: Predictions, record: RunRecord) -> Floats:
    """The scores that a metric needs. Raises ConfigError where the predictions do not hold them."""
    name = metric.measure.name
    if metric.needs == "answers":
        return predictions.scores
    if predictions.kind == "answers":
        raise ConfigError(
            f"{name} needs the scores of all classes, and of this run only the predicted classes are known; "
            "give a file with a column of scores for each class, or use accuracy, balanced_accuracy or "
            "macro_f1"
        )
    if metric.needs == "order":
        return predictions.scores if name.startswith("top") else predictions.probabilities
    if predictions.kind != "logits":
        raise ConfigError(f"{name} needs probabilities, and these scores are none; use auroc or accuracy")
    if not metric.calibrated:
        return predictions.scores
    if record.calibration is None:
        raise ConfigError(
            f"{name} needs the temperature that is fitted on the validation split, and this run has none; "
            f"use {name.removesuffix('_calibrated')}"
        )
    return predictions.calibrated(record.calibration.temperature).scores


def _check_answers(metric: Metric, predictions: Predictions) -> None:
    missing = int((~answered(predictions.scores)).sum())
    if missing and not metric.counts_no_answer:
        raise ConfigError(
            f"{metric.measure.name}: {counted(missing, 'image')} of {len(predictions.labels):,} without an "
            "answer (scores that are not finite), which this metric cannot count; with brier such an image "
            "counts 2, the worst score, with accuracy as wrong"
        )


def estimate_of_metric(seeds: Sequence[Measured], same_images: bool) -> Estimate:
    """The metric of a variant: that of its only seed, or the mean over its seeds with `over_seeds`;
    where they were tested on different divisions of the images, `estimate_over_divisions`."""
    low, high = seeds[0].metric.measure.ends
    if same_images:
        found = over_seeds([seed.estimate for seed in seeds], bounded=(low, high) == (0, 1))
        assert found is not None
        return replace(found, low=max(low, found.low))
    divisions = [seed.division for seed in seeds if seed.division]
    estimate, _ = estimate_over_divisions(np.array([seed.figure for seed in seeds]), divisions)
    return replace(estimate, low=max(low, estimate.low), high=min(high, estimate.high))
