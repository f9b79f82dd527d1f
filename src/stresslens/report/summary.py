"""Summary of a study or a run: headline scores, and runs that did not finish."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from stresslens.comparison.headline import unbalanced
from stresslens.core.format import count, percent_sign
from stresslens.core.score_units import is_proportion
from stresslens.core.text import NOT_FINITE
from stresslens.core.types import Estimate
from stresslens.evaluation.record import Calibration, TrainingRecord
from stresslens.metrics.leaked_copies import GAIN, ON, WITHOUT
from stresslens.metrics.normal_range import range_quantile
from stresslens.metrics.random_effects import FEWEST_SEEDS
from stresslens.report.load import Run, StudyFolder, VariantRuns

VALIDATION, TRAINING = "accuracy on validation", "accuracy on training"
HEADLINE = ("accuracy", VALIDATION, TRAINING, "majority_baseline")
ORDER = (
    *HEADLINE,
    *(WITHOUT, ON, GAIN),
    "balanced_accuracy",
    "macro_precision",
    "macro_f1",
    "weighted_precision",
    "weighted_f1",
    "top5",
    "cross_entropy",
    "cross_entropy_calibrated",
    "brier",
    "brier_calibrated",
    "ece",
    "ece_calibrated",
    "auroc",
    "auprc",
    "aurc",
)
TITLES = {
    VALIDATION: "Accuracy on validation",
    TRAINING: "Accuracy on training",
    "majority_baseline": "Majority-class baseline",
    WITHOUT: "Accuracy without copies",
    ON: "Accuracy on copies alone",
    GAIN: "Accuracy gained by copies",
    "no_answer": NOT_FINITE.capitalize(),
    "macro_f1": "Macro F1",
    "weighted_f1": "Weighted F1",
    "cross_entropy": "Cross-entropy",
    "cross_entropy_calibrated": "Calibrated cross-entropy",
    "brier": "Brier score",
    "brier_calibrated": "Calibrated Brier score",
    "ece": "Expected calibration error",
    "ece_calibrated": "Calibrated ECE",
    "auroc": "Mean AUROC",
    "auprc": "Mean AUPRC",
    "aurc": "Area under risk–coverage",
}


@dataclass(frozen=True)
class Score:
    """A score with one estimate for each row or column of its table."""

    name: str
    title: str
    is_percent: bool
    estimates: Sequence[Estimate | None]

    @property
    def written(self) -> str:
        return self.title + (", %" if self.is_percent else "")


def scores(study: StudyFolder) -> list[Score]:
    """The scores that any finished run has, accuracy first, then that on validation and training, then
    the baseline; one estimate for each of `headline`. On unbalanced data the balanced accuracy is one
    of the first."""
    variants = headline(study)
    names = {name for run in study.runs if run.finished for name in run.record.scores.get(study.split, {})}
    found = {name: [variant.score(study.split, name) for variant in variants] for name in names}
    for name, split in ((VALIDATION, "validation"), (TRAINING, "train")):
        there = [variant.score(split, "accuracy") for variant in variants]
        if study.split != split and any(there):
            found[name] = there
    return [_score(name, found[name]) for name in in_order(set(found))]


def headline_names(study: StudyFolder) -> tuple[str, ...]:
    """The scores of the table of results; the others are behind "More scores"."""
    of_runs = ([n for n in _class_sizes(run, study.split) if n] for run in study.runs)
    return (*HEADLINE, "balanced_accuracy") if any(map(unbalanced, of_runs)) else HEADLINE


def _class_sizes(run: Run, split: str) -> Sequence[int]:
    table = run.record.per_class.get(split)
    return table.support if table else ()


def run_scores(run: Run) -> tuple[list[str], list[Score]]:
    """A run's splits, test first, and every score with one estimate for each split."""
    splits: list[str] = [split for split in ("test", "validation", "train") if split in run.record.scores]
    names = {name for split in splits for name in run.record.scores[split]}
    return splits, [
        _score(name, [run.record.scores[split].get(name) for split in splits]) for name in in_order(names)
    ]


def in_order(names: set[str]) -> list[str]:
    return [*(name for name in ORDER if name in names), *sorted(names.difference(ORDER))]


def _score(name: str, estimates: Sequence[Estimate | None]) -> Score:
    return Score(name, title(name), is_proportion(name) or name in HEADLINE, estimates)


def shared_baseline(columns: Sequence[Score]) -> Estimate | None:
    """The majority-class baseline, if it is the same for all variants."""
    found = [e for column in columns if column.name == "majority_baseline" for e in column.estimates]
    return found[0] if found and len({(e.value, e.n) if e else None for e in found}) == 1 else None


def chosen(study: StudyFolder) -> str:
    """The variant of the highest validation accuracy, averaged over its seeds; empty if there is no
    choice: fewer than two variants, a tie, a variant without one, or results on validation itself."""
    variants = headline(study)
    means = {variant.name: variant.mean(_on_validation) for variant in variants}
    known = {name: mean for name, mean in means.items() if mean is not None}
    if len(variants) < 2 or len(known) < len(variants) or study.split == "validation":
        return ""
    first = [name for name, mean in known.items() if mean >= max(known.values()) - 1e-9]
    return first[0] if len(first) == 1 else ""


def best(study: StudyFolder) -> str:
    """The variant of the highest accuracy; empty without one."""
    found = {v.name: e.value for v in headline(study) if (e := v.score(study.split, "accuracy"))}
    return max(found, key=lambda name: found[name]) if found else ""


def _on_validation(run: Run) -> float | None:
    estimate = run.record.scores.get("validation", {}).get("accuracy")
    return estimate.value if estimate else None


def temperature_note(calibration: Calibration | None) -> str:
    """What "calibrated" stands for on a run's page, or why nothing is calibrated."""
    if calibration is None:
        return ""
    fitted = calibration.fitted
    if not calibration.helps:
        found = f" (fitted: {_temperature(fitted)})" if fitted else ""
        return f"Not calibrated: {calibration.why_not} than 1{found}."
    written = _temperature(fitted) if fitted else f"{calibration.temperature:.3g}"
    images = f" ({count(calibration.n)} images)" if calibration.n else ""
    gain = calibration.gain
    lowers = f"; it lowers the cross-entropy of images it was not fitted on by {gain:.3g}" if gain else ""
    return (
        f'"Calibrated" is after temperature scaling with T = {written}, fitted on '
        f"{calibration.fitted_on}{images}{lowers}."
    )


def _temperature(fitted: Estimate) -> str:
    if math.isinf(fitted.high):
        return f"{fitted.value:.3g}, at least {fitted.low:.2g}"
    return f"{fitted.value:.3g}, {fitted.low:.3g} to {fitted.high:.3g}"


def headline(study: StudyFolder) -> list[VariantRuns]:
    """The variants with a finished run; the others are in `unfinished`."""
    return [variant for variant in study.variants if variant.finished]


def seed_dependence(study: StudyFolder) -> list[str]:
    """A sentence for each variant whose seeds differ in accuracy by more than their images explain.
    The threshold is the studentized range of as many samples of n independent images; seeds on one
    test split differ by no more than that."""
    sentences = []
    for variant in headline(study):
        found = [
            e for run in variant.finished if (e := run.record.scores.get(study.split, {}).get("accuracy"))
        ]
        if len(found) < 2:
            continue
        low, high, n = min(e.value for e in found), max(e.value for e in found), min(e.n for e in found)
        mean = math.fsum(e.value for e in found) / len(found)
        explained = range_quantile(0.95, len(found)) * math.sqrt(mean * (1 - mean) / n)
        if high - low > explained:
            observed = f"{100 * low:.1f} to {100 * high:.1f} % over {len(found)} seeds"
            comparison = f"further apart than {n:,} images explain ({100 * explained:.1f} points)"
            sentences.append(f"{variant.name} depends on its seed: {observed}, {comparison}.")
    return sentences


def unseen_seeds(study: StudyFolder) -> str:
    """What the intervals cannot show of seeds that did not occur; empty without a finished run."""
    seeds = max((len(variant.finished) for variant in headline(study)), default=0)
    if seeds == 1:
        return (
            "With one seed the intervals are over the images alone: how much another seed would change "
            "these figures is not known, and a difference is one of these weights, not of the settings. "
            "More seeds: repeats=5."
        )
    if seeds < FEWEST_SEEDS:
        return "Two seeds are too few to show how much seeds vary." if seeds == FEWEST_SEEDS - 1 else ""
    left = 1 - 0.05 ** (1 / seeds)
    return (
        f"A seed that goes wrong now and then is in the intervals only if it occurred: {seeds} seeds without "
        f"one leave up to {100 * left:.0f} % of such seeds possible (95 %)."
    )


@dataclass(frozen=True)
class Unfinished:
    run: str
    seed: int
    status: str
    message: str
    epochs: int


def unfinished(study: StudyFolder) -> list[Unfinished]:
    """Every run that was started or is listed, and did not finish."""
    rows = []
    for variant in study.variants:
        rows += [
            Unfinished(variant.name, run.seed, run.record.status, reason(run), len(run.metrics))
            for run in variant.runs
            if not run.finished
        ]
        rows += [
            Unfinished(variant.name, seed, "not started", "no record in its folder", 0)
            for seed in variant.missing
        ]
    return rows


@dataclass(frozen=True)
class MissingPart:
    """An evaluation of a finished run that failed."""

    run: str
    seed: int
    part: str
    message: str


def missing_parts(study: StudyFolder) -> list[MissingPart]:
    """Every evaluation that failed, of the runs that have a model."""
    return [
        MissingPart(run.name, run.seed, PARTS.get(stage, stage), failure.message)
        for run in study.runs
        if run.finished
        for stage, failure in run.record.failures.items()
    ]


PARTS = {
    "evaluation": "test-time augmentation",
    "robustness": "attacks and certificates",
    "explain": "explanations",
    "track": "trackers",
}
"""Stages that have another name on the page."""


def command(study: StudyFolder) -> str:
    """The command of the study, which does only what is missing; empty without one."""
    return shlex.join(study.file.command) if study.file else ""


def reason(run: Run) -> str:
    """Why the run did not finish."""
    if run.record.status == "running" and not run.record.message:
        return "still running when this page was written, or killed before it could record a reason"
    return run.record.message or "no reason was recorded"


def scored(name: str, split: str, estimate: Estimate | None, baseline: Estimate | None) -> list[str]:
    """One sentence on one accuracy, if there is any."""
    if not estimate:
        return []
    instead = (
        f", against {100 * baseline.value:.1f} for always naming the commonest class" if baseline else ""
    )
    return [f"{name}: {percent_sign(estimate)} of the {split} split is classified correctly{instead}."]


def run_opening(run: Run, split: str) -> list[str]:
    """The sentences at the head of a run's page: accuracy, and whether it says anything."""
    scores = run.record.scores.get(split, {})
    accuracy, baseline, even = (
        scores.get(name) for name in ("accuracy", "majority_baseline", "balanced_accuracy")
    )
    sentences = scored(run.name, split, accuracy, baseline)
    named = [k for k, column in enumerate(zip(*run.record.confusion.get(split, []))) if any(column)]
    if len(named) == 1 and named[0] < len(run.classes) > 1:
        sentences.append(f"It names the same class, {run.classes[named[0]]}, for every image.")
    elif accuracy and baseline and accuracy.low <= baseline.value:
        sentences.append("It is not shown to be better than always naming the commonest class.")
    if even and sentences and unbalanced([n for n in _class_sizes(run, split) if n]):
        sentences.append(f"The classes are unbalanced: balanced accuracy is {percent_sign(even)}.")
    return sentences


def chosen_epoch(training: TrainingRecord) -> str:
    """Which epoch's weights the run kept, and by what rule; empty if unknown."""
    if training.chosen_epoch is None:
        return ""
    if training.select == "last":
        return f"The last epoch, {count(training.chosen_epoch)}, was kept; validation chose nothing. "
    score = "robust accuracy" if training.select == "robust" else training.select
    rule = f" by the {score} on validation" if score else ""
    return f"Epoch {count(training.chosen_epoch)} was chosen{rule}. "


def title(name: str) -> str:
    if name.startswith("top") and name[3:].isdecimal():
        return f"Top-{name[3:]}"
    return TITLES.get(name, name.replace("_", " ").capitalize())
