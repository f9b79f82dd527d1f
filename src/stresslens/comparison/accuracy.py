"""Accuracy differences between variants, tested over seeds and test images, from saved predictions
alone."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from stresslens.comparison import costs, errors_by_class
from stresslens.comparison.best_set import best_set
from stresslens.comparison.difference import (
    LEVEL,
    Difference,
    Right,
    difference_of,
    divided_difference_of,
    estimate_over_divisions,
    with_holm,
)
from stresslens.comparison.headline import class_sizes, headline_sentences, unbalanced
from stresslens.comparison.margins import Margins, with_margins
from stresslens.comparison.measured_run import Measured, estimate_of_metric, is_measured
from stresslens.comparison.metric_difference import (
    balanced_difference,
    balanced_figure,
    divided_metric_difference,
    metric_difference,
)
from stresslens.comparison.schema import ComparisonFile, DifferenceMatrix, ErrorsByClass
from stresslens.comparison.tested_run import (
    ONLY_RUN,
    Tested,
    VariantFolders,
    same_function,
    tested_of,
    variants_of,
)
from stresslens.config.study_record import read_study_record
from stresslens.core.run_folder import RunFolder
from stresslens.core.types import Estimate
from stresslens.metrics import random_effects

LARGEST_MATRIX = 24

Contrasts = Sequence[tuple[str, str, str]]
"""The pairs to compare: the contrast's name, a and b."""


def accuracy_of(right: Right) -> Estimate:
    """A variant's accuracy over its seeds and images (Wilson's interval with one seed). `n` is the
    number of images."""
    return random_effects.proportion(right, level=LEVEL)


def compare_accuracy(
    variants: VariantFolders,
    contrasts: Contrasts,
    *,
    split: str = "test",
    ask: float | None = None,
    metric: str = "accuracy",
    read: Callable[[RunFolder, str], Tested] = tested_of,
    margins: Margins | None = None,
) -> ComparisonFile:
    """Compute each variant's accuracy, each contrast's difference, errors by class and costs. For 3
    to 24 variants, also compute the matrix of all pairs, and which of them may be the best.

    A contrast uses the seeds that both variants have finished. Both must have been tested on the
    same images; otherwise the verdict says that they were not compared. `ask` is the difference
    that the plans are for. `read` loads a run's predictions on a split. `margins` are those that the
    contrasts are asked about.
    """
    tested = {
        name: {seed: read(folder, split) for seed, folder in folders.items()}
        for name, folders in variants.items()
        if folders
    }
    accuracies = {
        name: accuracy for name, seeds in tested.items() if (accuracy := variant_figure(list(seeds.values())))
    }
    pairs = _Pairs()
    for contrast, a, b in contrasts:
        pairs.add(contrast, a, b, tested, ask)
    differences = with_holm(pairs.differences)
    records = {name: {seed: run.record for seed, run in seeds.items()} for name, seeds in tested.items()}
    head = headline_sentences(accuracies, tested) if accuracies else []
    verdicts = [*head, *(d.verdict for d in differences), *pairs.refused, *pairs.left_out]
    compared = ComparisonFile(
        format=1,
        split=split,
        metric=metric,
        level=LEVEL,
        recipes=accuracies,
        contrasts=with_margins(differences, margins),
        errors=pairs.errors,
        costs=[ratio.as_cost() for ratio in costs.compare_costs(records, contrasts, level=LEVEL)],
        refused=pairs.refused,
        verdicts=verdicts if accuracies else [],
    )
    if 3 <= len(accuracies) <= LARGEST_MATRIX:
        names = list(accuracies)
        every_pair = _every_pair(names, tested)
        compared.matrix = _matrix(names, every_pair)
        runs = all(seed == ONLY_RUN for seeds in variants.values() for seed in seeds)
        if (best := best_set(names, every_pair, noun="run" if runs else "variant")) is not None:
            compared.best = best
    return compared


@dataclass
class _Pairs:
    """The contrasts that can be compared, and a sentence for each one that cannot."""

    differences: list[Difference] = field(default_factory=list)
    errors: list[ErrorsByClass] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def add(
        self,
        contrast: str,
        a: str,
        b: str,
        tested: Mapping[str, Mapping[str, Tested]],
        ask: float | None,
    ) -> None:
        if missing := " and ".join(name for name in (a, b) if name not in tested):
            self.refused.append(
                f"{a} and {b} were not compared: {missing} is missing, without a finished run"
            )
            return
        difference = paired_accuracy(contrast, a, b, tested, ask)
        if not isinstance(difference, Difference):
            self.refused.append(difference)
            return
        self.differences.append(difference)
        seeds = [
            (tested_a.right, tested[b][seed].right, tested_a.labels)
            for seed, tested_a in tested[a].items()
            if seed in tested[b]
        ]
        counts = errors_by_class.count_errors(seeds)
        self.errors.append(ErrorsByClass(contrast=contrast, a=a, b=b, seeds=len(seeds), **counts))
        unpaired = {
            f"{name}/{seed}"
            for name, other in ((a, b), (b, a))
            for seed in tested[name].keys() - tested[other].keys()
        }
        if unpaired:
            self.left_out.append(
                f"left out of {a} against {b}, because the other has no run of this seed: "
                + ", ".join(sorted(unpaired))
            )


def compare_study_accuracy(folder: Path, *, split: str = "test") -> ComparisonFile:
    """Run `compare_accuracy` on a study's folder: the finished runs, the contrasts and the margins of its
    study.json."""
    study = read_study_record(folder)
    variants = variants_of(folder, lambda run: run.predictions(split).exists())
    return compare_accuracy(variants, study.contrasts, split=split, margins=Margins(study.margins))


def variant_figure(seeds: Sequence[Tested]) -> Estimate | None:
    """The accuracy over the seeds, or the metric that they were read by. None if the seeds were tested on
    different images and the study does not divide the images anew for each seed."""
    same_images = not any(seeds[0].mismatch(other) for other in seeds[1:])
    measured = [seed for seed in seeds if isinstance(seed, Measured)]
    if measured and (same_images or all(seed.division for seed in seeds)):
        return estimate_of_metric(measured, same_images)
    if same_images:
        return accuracy_of(np.stack([seed.right for seed in seeds]).astype(np.float32))
    divisions = [seed.division for seed in seeds if seed.division]
    if len(divisions) < len(seeds):
        return None
    estimate, _ = estimate_over_divisions(np.array([seed.right.mean() for seed in seeds]), divisions)
    return replace(estimate, low=max(0.0, estimate.low), high=min(1.0, estimate.high))


def paired_accuracy(
    contrast: str, a: str, b: str, tested: Mapping[str, Mapping[str, Tested]], ask: float | None
) -> Difference | str:
    """The difference over the seeds that both variants have, or a sentence that says why there is
    none."""
    pairs = [(tested[a][seed], tested[b][seed]) for seed in tested[a] if seed in tested[b]]
    if not pairs:
        return f"{a} and {b} were not compared: they have no finished seed in common"
    split = pairs[0][0].split
    for one, other in pairs:
        if why := one.mismatch(other):
            return f"{a} and {b} were not compared: {why}"
    measured = [pair for pair in pairs if is_measured(pair)]
    same_images = not any(pairs[0][0].mismatch(one) for one, _ in pairs[1:])
    if measured and same_images:
        return metric_difference(contrast, a, b, measured, ask)
    if same_images:
        right = [np.stack([pair[side].right for pair in pairs]).astype(np.float32) for side in (0, 1)]
        found = difference_of(contrast, a, b, *right, ask=ask)
        if unbalanced(class_sizes(labels := pairs[0][0].labels)):
            found = replace(found, balanced=balanced_difference(right[0], right[1], labels))
        same = all(same_function(one.record, other.record) for one, other in pairs)
        return replace(found, under=pairs[0][0].under, threat=pairs[0][0].threat, same_function=same)
    divisions = [one.division for one, _ in pairs if one.division]
    if len(divisions) < len(pairs):
        return f"{a} and {b} were not compared: their seeds were tested on different {split} images"
    gains = np.array([other.figure - one.figure for one, other in pairs])
    if measured:
        return divided_metric_difference(contrast, a, b, measured, gains, divisions, ask)
    found = divided_difference_of(contrast, a, b, gains, divisions, ask=ask)
    if unbalanced(class_sizes(pairs[0][0].labels)):
        gains = np.array([balanced_figure(other) - balanced_figure(one) for one, other in pairs])
        balanced, _ = estimate_over_divisions(gains, divisions)
        found = replace(found, balanced=balanced)
    return replace(found, under=pairs[0][0].under, threat=pairs[0][0].threat)


def _every_pair(names: list[str], tested: Mapping[str, Mapping[str, Tested]]) -> list[Difference]:
    """The difference of every two that can be compared. Holm's correction is over them."""
    pairs = [paired_accuracy("", b, a, tested, None) for a, b in itertools.combinations(names, 2)]
    return with_holm([pair for pair in pairs if isinstance(pair, Difference)])


def _matrix(names: list[str], differences: Sequence[Difference]) -> DifferenceMatrix:
    """Accuracy of the row minus accuracy of the column. None where a pair cannot be compared."""
    index = {name: k for k, name in enumerate(names)}
    empty: list[list[Any]] = [[None] * len(names) for _ in names]
    cells = {key: [list(row) for row in empty] for key in ("difference", "low", "high", "p_holm", "real")}
    for d in differences:
        row, column, e = index[d.b], index[d.a], d.difference
        for key, above, below in (
            ("difference", e.value, -e.value),
            ("low", e.low, -e.high),
            ("high", e.high, -e.low),
            ("p_holm", d.p_holm, d.p_holm),
            ("real", d.real, d.real),
        ):
            cells[key][row][column], cells[key][column][row] = above, below
    return DifferenceMatrix(recipes=names, **cells)
