"""The difference of two variants by a metric other than accuracy, tested over seeds and images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from stresslens.comparison.difference import (
    LEVEL,
    Difference,
    Right,
    difference_of,
    divided_difference_of,
    images_tell,
    planned_difference,
    takes_in_words,
)
from stresslens.comparison.measured_run import Pair
from stresslens.comparison.tested_run import Tested
from stresslens.core.types import Estimate
from stresslens.evaluation.record import DivisionRecord
from stresslens.metrics.classification import Labels
from stresslens.metrics.image_values import recall_values
from stresslens.metrics.intervals import Floats
from stresslens.metrics.measures import MEASURES, Measure
from stresslens.metrics.paired_values import paired_values
from stresslens.metrics.random_effects import FEWEST_SEEDS, Goal

UNKNOWN_PLAN = "a number of images that is not known, because the bias of this metric falls with it"


def metric_difference(contrast: str, a: str, b: str, pairs: Sequence[Pair], ask: float | None) -> Difference:
    """The difference over seeds that were tested on the same images, b minus a.

    Of shares of images, such as the top-5 accuracy, `difference_of`. Else `difference_of_values`.
    """
    metric = pairs[0][0].metric
    values = [np.stack([pair[side].values for pair in pairs]) for side in (0, 1)]
    if metric.is_share_of_images:
        found = difference_of(contrast, a, b, values[0], values[1], ask=ask)
        return replace(found, measure=metric.measure)
    bias = None
    if metric.bias is not None:
        bias = float(np.mean([other.bias - one.bias for one, other in pairs]))
    return difference_of_values(
        contrast,
        a,
        b,
        *values,
        measure=metric.measure,
        ask=ask,
        whole=metric.whole,
        unseen=metric.unseen,
        bias=bias,
    )


def difference_of_values(
    contrast: str,
    a: str,
    b: str,
    values_a: Floats,
    values_b: Floats,
    *,
    measure: Measure,
    ask: float | None = None,
    whole: float = 1.0,
    unseen: float = 0.0,
    bias: float | None = None,
) -> Difference:
    """Compare values (seeds, images) whose means are the metric of each seed, paired over both.

    The interval and p are those of `paired_values`. Where noise makes the metric too
    large, `bias` is about by how much more it does so for b: the interval then reaches from the
    difference without this bias to the observed one, with the margin at both ends.
    """
    delta = values_b - values_a
    seeds, images = delta.shape
    paired, value = paired_values(delta, whole=whole, unseen=unseen, bias=bias or 0.0), float(delta.mean())
    most = measure.ends[1] - measure.ends[0]

    def ends_at(level: float) -> tuple[float, float]:
        low, high = paired.bounds(level)
        return max(-most, low), min(most, high)

    low, high = ends_at(LEVEL)
    over = f"t over {seeds} seeds and over images" if seeds > 1 else "t over images, paired"
    estimate = Estimate(
        value,
        min(low, value),
        max(high, value),
        images,
        over if bias is None else f"{over}, bias-aware",
        LEVEL,
        "both" if seeds > 1 else "images",
    )
    ask = ask or planned_difference(value, measure)
    present = f"{seeds} seeds and {images:,} images" if seeds > 1 else f"{images:,} images"
    takes = takes_in_words(paired.table, images, Goal(ask, LEVEL)) if bias is None else UNKNOWN_PLAN
    return Difference(
        contrast,
        a,
        b,
        estimate,
        paired.p,
        seeds,
        images,
        ask,
        present,
        takes,
        too_few_seeds=1 < seeds < FEWEST_SEEDS and images_tell(delta),
        measure=measure,
        whole=whole,
        ends_at=ends_at,
    )


def divided_metric_difference(
    contrast: str,
    a: str,
    b: str,
    pairs: Sequence[Pair],
    gains: Floats,
    divisions: Sequence[DivisionRecord],
    ask: float | None,
) -> Difference | str:
    """The difference over divisions of the images; `gains` (J,) are those of each division. A sentence
    where the bias of the metric may differ, which that test cannot take into account."""
    metric = pairs[0][0].metric
    if metric.bias is not None:
        return (
            f"{a} and {b} were not compared: {metric.measure.words} is too large on few images, by another "
            "amount for each model, which the test over divisions of the images does not see; "
            "use brier or cross_entropy"
        )
    found = divided_difference_of(contrast, a, b, gains, divisions, ask=ask, measure=metric.measure)
    return replace(found, whole=max(one.metric.whole for one, _ in pairs))


def balanced_difference(right_a: Right, right_b: Right, labels: Labels) -> Estimate:
    """The difference in balanced accuracy of answers (seeds, images), b minus a, as
    `difference_of_values` gives it."""
    values = [np.stack([_recalls(seed, labels) for seed in right > 0]) for right in (right_a, right_b)]
    sizes = np.unique(labels, return_counts=True)[1]
    whole = len(labels) / (len(sizes) * int(sizes.min()))
    measure = MEASURES["balanced_accuracy"]
    return difference_of_values("", "", "", *values, measure=measure, whole=whole).difference


def balanced_figure(tested: Tested) -> float:
    """The balanced accuracy of a run."""
    return float(_recalls(tested.right, tested.labels).mean())


def _recalls(right: NDArray[np.bool_], labels: Labels) -> Floats:
    return recall_values(right, labels, np.unique(labels))
