"""The contrasts of a study by metrics other than accuracy, from saved predictions alone."""

from __future__ import annotations

from pathlib import Path

from stresslens.comparison.accuracy import Contrasts, paired_accuracy, variant_figure
from stresslens.comparison.difference import Difference, with_holm
from stresslens.comparison.margins import with_margins
from stresslens.comparison.measured_run import Measured, predictions_by_metric
from stresslens.comparison.schema import ComparisonByMetric, ComparisonFile
from stresslens.comparison.tested_run import VariantFolders, variants_of
from stresslens.config.study_record import read_study_record
from stresslens.core.errors import ConfigError
from stresslens.core.text import enumeration

BALANCED = "balanced_accuracy"
NAMED = 6
"""Most variants that a sentence names."""


def compare_study_by_metrics(folder: Path, compared: ComparisonFile) -> dict[str, ComparisonByMetric]:
    """The contrasts of a study by each metric that its study.json lists, by the metric's name.

    `compared` are the contrasts by accuracy, on the same split. Those between runs whose tested classes
    are unbalanced are judged by the balanced accuracy, also where it is not listed.
    """
    study = read_study_record(folder)
    asked: dict[str, Contrasts] = {name: study.contrasts for name in study.metrics if name != "accuracy"}
    unbalanced = [(each.contrast, each.a, each.b) for each in compared.contrasts if each.balanced is not None]
    if unbalanced and BALANCED not in asked:
        asked = {BALANCED: unbalanced, **asked}
    if not asked:
        return {}
    variants = variants_of(folder, lambda run: run.predictions(compared.split).exists())
    return {
        name: _compared(variants, contrasts, name, compared.split, asked=name in study.metrics)
        for name, contrasts in asked.items()
    }


def _compared(
    variants: VariantFolders, contrasts: Contrasts, metric: str, split: str, *, asked: bool
) -> ComparisonByMetric:
    """The contrasts by one metric; Holm's correction is over them. Variants that the metric does not
    apply to are left out, with a sentence."""
    named = {name for _, a, b in contrasts for name in (a, b)}
    measured: dict[str, dict[str, Measured]] = {}
    without: dict[str, list[str]] = {}
    for variant, seeds in variants.items():
        if variant not in named or not seeds:
            continue
        try:
            measured[variant] = {
                seed: predictions_by_metric(run, split, metric) for seed, run in seeds.items()
            }
        except ConfigError as error:
            without.setdefault(str(error), []).append(variant)
    refused = [f"{enumeration(names, NAMED)}: {why}" for why, names in without.items()]
    differences: list[Difference] = []
    for contrast, a, b in contrasts:
        if a in measured and b in measured:
            found = paired_accuracy(contrast, a, b, measured, None)
            differences.append(found) if isinstance(found, Difference) else refused.append(found)
    figures = {name: variant_figure(list(seeds.values())) for name, seeds in measured.items()}
    return ComparisonByMetric(
        asked=asked,
        recipes={name: figure for name, figure in figures.items() if figure is not None},
        contrasts=with_margins(with_holm(differences), None),
        refused=list(dict.fromkeys(refused)),
    )


def said_in_short(metric: str, compared: ComparisonByMetric) -> list[str]:
    """A line or a few on the contrasts by a metric: the verdict of a single one; else how many are real,
    with the verdicts of those."""
    by = f"by {metric}"
    if len(compared.contrasts) == 1:
        return [f"{by}: {compared.contrasts[0].verdict}", *(f"{by}: {why}" for why in compared.refused)]
    verdicts = list(dict.fromkeys(each.verdict for each in compared.contrasts if each.real))
    said = [f"{by}: {_count(len(verdicts), _different(compared))}"] if compared.contrasts else []
    return [
        *said,
        *(f"    {each}" for each in verdicts[:NAMED]),
        *(f"{by}: {why}" for why in compared.refused),
    ]


def _different(compared: ComparisonByMetric) -> int:
    return len({each.verdict for each in compared.contrasts})


def _count(real: int, pairs: int) -> str:
    return f"{real or 'none'} of {pairs} differences {'are' if real > 1 else 'is'} real"
