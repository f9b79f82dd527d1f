"""What each ingredient of a recipe is worth, from the finished runs of an ablation: its gain in the full
recipe and in the bare one, whether the two differ, and its price."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np

from stresslens.comparison.accuracy import paired_accuracy
from stresslens.comparison.difference import LEVEL, Difference, divided_difference_of
from stresslens.comparison.measured_run import Measured, predictions_by_metric
from stresslens.comparison.metric_difference import difference_of_values
from stresslens.comparison.robustness import threats_of
from stresslens.comparison.schema import (
    AblatedIngredient,
    Ablation,
    ComparisonFile,
    Contrast,
    CostRatio,
    IngredientWorth,
    RobustContrast,
    WorthTable,
)
from stresslens.comparison.tested_run import Tested, tested_of, variants_of
from stresslens.config.ablation import alternatives_in_words, ingredient_in_words
from stresslens.config.study_record import StatedAblation, StatedIngredient, read_study_record
from stresslens.core.errors import ConfigError
from stresslens.metrics.intervals import Floats
from stresslens.metrics.measures import ACCURACY, Measure, measure_of
from stresslens.metrics.paired import holm
from stresslens.metrics.random_effects import Goal

PRICES = ("seconds to the stop", "peak memory", "parameters", "multiply-adds", "seconds to score")
"""The costs that make the price of an ingredient; the first is always told, the others where they differ."""

TestedVariants = Mapping[str, Mapping[str, Tested]]
"""The runs of each variant by their seeds."""


def study_ablation(folder: Path, compared: ComparisonFile) -> Ablation | None:
    """The ablation of a study that was `compared`; None for a study without one.

    Gains and costs are those of its contrasts and have their verdicts. They are given for the accuracy, the
    robust accuracy under each attack at the radius of the contrasts, and each further metric.
    """
    stated = read_study_record(folder).ablation
    if stated is None:
        return None
    by_pair: dict[tuple[str, str], list[CostRatio]] = {}
    for cost in compared.costs:
        known = by_pair.setdefault((cost.a, cost.b), [])
        known += [] if any(each.measure == cost.measure for each in known) else [cost]
    return Ablation(
        full=stated.full,
        bare=stated.bare,
        ingredients=[
            AblatedIngredient(
                name=each.name,
                settings=ingredient_in_words(each),
                costs=_price(by_pair.get(each.left_out or each.added or ("", ""), [])),
            )
            for each in stated.ingredients
        ],
        tables=[table for table in _tables(folder, stated, compared) if table.rows],
        kept=stated.kept,
        excluded=alternatives_in_words(stated.ingredients),
    )


def _price(costs: Sequence[CostRatio]) -> list[CostRatio]:
    ranked = sorted((each for each in costs if each.measure in PRICES), key=lambda c: PRICES.index(c.measure))
    return [each for each in ranked if each.real or each.measure == PRICES[0]]


def _tables(folder: Path, stated: StatedAblation, compared: ComparisonFile) -> Iterable[WorthTable]:
    split = compared.split
    variants = variants_of(folder, lambda run: run.predictions(split).exists())
    tested: TestedVariants = {
        name: {seed: tested_of(run, split) for seed, run in seeds.items()} for name, seeds in variants.items()
    }
    yield worth_table(stated, "accuracy", compared.contrasts, tested)
    robust = [each for each in compared.robustness if isinstance(each, RobustContrast)]
    for attacked, _ in threats_of(folder):
        first = next(run for seeds in attacked.values() for run in seeds.values())
        threat = (first.result.norm, first.result.protocol, first.eps)
        pairs = [each for each in robust if (each.norm, each.protocol, each.eps) == threat]
        yield worth_table(stated, first.measure, pairs, attacked)
    for metric, by_metric in compared.by_metric.items():
        measured: dict[str, dict[str, Tested]] = {}
        for name, seeds in variants.items():
            with suppress(ConfigError):  # its contrasts say why it has none
                measured[name] = {
                    seed: predictions_by_metric(run, split, metric) for seed, run in seeds.items()
                }
        yield worth_table(stated, metric, by_metric.contrasts, measured)


def worth_table(
    stated: StatedAblation, metric: str, contrasts: Sequence[Contrast], tested: TestedVariants
) -> WorthTable:
    """What each ingredient is worth by one metric, the most first: the contrasts of its pairs, and the
    interaction. Holm's correction of the interactions is over the ingredients."""
    by_pair = {(each.a, each.b): each for each in reversed(contrasts)}
    interactions = {name: _contrast_of(each) for name, each in corrected_interactions(stated, tested).items()}
    rows = []
    for each in stated.ingredients:
        left_out, added = by_pair.get(each.left_out or ("", "")), by_pair.get(each.added or ("", ""))
        if left_out is not None or added is not None:
            row = IngredientWorth(
                ingredient=each.name,
                left_out=left_out,
                added=added,
                interaction=interactions.get(each.name),
                verdict=_verdict(left_out, added),
                plan=_plan(left_out or added, tested, len(by_pair)),
            )
            rows.append(row)
    rows.sort(key=_gain, reverse=True)
    together = by_pair.get((stated.bare, stated.full)) if stated.full else None
    return WorthTable(metric=metric, together=together, rows=rows)


def corrected_interactions(stated: StatedAblation, tested: TestedVariants) -> dict[str, Difference]:
    """The interactions that can be computed, by ingredient, with Holm's correction over them. Two ingredients
    have one and the same interaction, which counts once."""
    found = {each.name: interaction_of(each, stated, tested) for each in stated.ingredients}
    known = {name: each for name, each in found.items() if each is not None}
    of_runs = {
        each.name: frozenset((*(each.left_out or ()), *(each.added or ()))) for each in stated.ingredients
    }
    corrected = holm({of_runs[name]: each.p for name, each in known.items()})
    return {name: replace(each, p_holm=corrected[of_runs[name]]) for name, each in known.items()}


def _plan(contrast: Contrast | None, tested: TestedVariants, pairs: int) -> str | None:
    """How many images and seeds would tell a gain that is not distinguishable, among so many pairs; for
    which the level of the interval is Bonferroni's, a little stricter than Holm's."""
    if contrast is None or contrast.real:
        return None
    found = paired_accuracy("", contrast.a, contrast.b, tested, None)
    if not isinstance(found, Difference) or found.needs is None:
        return contrast.plan
    asked, among = found.measure.asked(found.ask), f" among {pairs} pairs" if pairs > 1 else ""
    takes = found.needs(Goal(found.ask, 1 - (1 - LEVEL) / pairs))
    if not takes:
        return f"these {found.present} are enough to tell {asked} apart{among}, in 8 of 10 such studies"
    return f"telling {asked} apart{among} would take {takes}"


def _gain(row: IngredientWorth) -> float:
    contrast = row.left_out or row.added
    assert contrast is not None
    sign = 1 if measure_of(contrast.metric).higher_is_better else -1
    return sign * contrast.difference.value


def _verdict(left_out: Contrast | None, added: Contrast | None) -> str:
    """What an ingredient is worth in a few words. In the full recipe decides; alone is said where that does
    not tell."""
    first = left_out or added
    assert first is not None
    if first.better:
        helps = "earns its place" if left_out else "helps alone"
        hurts = "hurts" if left_out else "hurts alone"
        return helps if first.better > 0 else hurts
    undecided = "too few seeds" if first.too_few_seeds else "not distinguishable"
    if left_out and added and added.better:
        return f"{undecided} in full, {'helps' if added.better > 0 else 'hurts'} alone"
    return undecided


def interaction_of(
    ingredient: StatedIngredient, stated: StatedAblation, tested: TestedVariants
) -> Difference | None:
    """The gain of an ingredient in the full recipe minus that in the bare one, paired over the seeds and
    images of all four variants; None where one is missing, or their images differ. Its `contrast` is the
    name of the ingredient."""
    if ingredient.left_out is None or ingredient.added is None or ingredient.left_out == ingredient.added:
        return None
    names = (*ingredient.left_out, *ingredient.added)
    if not all(tested.get(name) for name in names):
        return None
    without, full, bare, alone = (tested[name] for name in names)
    seeds = [seed for seed in full if all(seed in each for each in (without, bare, alone))]
    first = full[seeds[0]] if seeds else None
    others = [each[seed] for seed in seeds for each in (without, full, bare, alone)]
    if first is None or any(full[s].mismatch(each[s]) for s in seeds for each in (without, bare, alone)):
        return None
    values = [[_values(each[seed]) for seed in seeds] for each in (without, full, bare, alone)]
    measure, whole = _measure_of(first)
    if not any(first.mismatch(other) for other in others):
        of = [np.stack(each) for each in values]
        low, high = measure.ends
        return difference_of_values(
            ingredient.name,
            "added to bare",
            "left out of full",
            of[0] + of[3],
            of[1] + of[2],
            measure=replace(measure, ends=(2 * low, 2 * high)),
            whole=2 * whole,
        )
    divisions = [each.division for each in full.values() if each.division]
    if len(divisions) < len(seeds):
        return None
    means = [np.array([float(seed.mean()) for seed in each]) for each in values]
    gains = means[1] + means[2] - means[0] - means[3]
    return divided_difference_of(
        ingredient.name, "added to bare", "left out of full", gains, divisions, measure=measure
    )


def _values(run: Tested) -> Floats:
    """The value of each image."""
    return run.values if isinstance(run, Measured) else run.right.astype(np.float64)


def _measure_of(run: Tested) -> tuple[Measure, float]:
    """What a run was tested by, and the largest difference that one image makes."""
    return (run.metric.measure, run.metric.whole) if isinstance(run, Measured) else (ACCURACY, 1.0)


def _contrast_of(interaction: Difference) -> Contrast:
    contrast = interaction.as_contrast()
    better = contrast.better
    contrast.verdict = (
        "worth more beside the others than alone"
        if better > 0
        else "worth less beside the others than alone"
        if better < 0
        else "too few seeds"
        if interaction.too_few_seeds
        else "not distinguishable"
    )
    return contrast
