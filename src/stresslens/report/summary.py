"""Summary of a study: headline scores, unfinished runs, and accuracy against cost."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from stresslens.charts.chart import Chart
from stresslens.charts.dot_charts import Interval, Mark, interval_chart, scatter_chart
from stresslens.comparison.headline import unbalanced
from stresslens.config.run_names import READABLE
from stresslens.core.format import count, footnote, percent
from stresslens.core.text import NOT_FINITE, duration
from stresslens.core.types import Estimate
from stresslens.evaluation.record import Calibration
from stresslens.metrics.random_effects import FEWEST_SEEDS
from stresslens.report.load import Run, StudyFolder, VariantRuns, is_proportion

VALIDATION = "accuracy on validation"
HEADLINE = ("accuracy", VALIDATION, "majority_baseline")
ORDER = (
    *HEADLINE,
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
    "majority_baseline": "Majority-class baseline",
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
    """The scores that any finished run has, accuracy first, then that on validation, then the
    baseline; one estimate for each of `headline`. On unbalanced data the balanced accuracy is one
    of the first."""
    variants = headline(study)
    names = {name for run in study.runs if run.finished for name in run.record.scores.get(study.split, {})}
    found = {name: [variant.score(study.split, name) for variant in variants] for name in names}
    validation = [variant.score("validation", "accuracy") for variant in variants]
    if study.split != "validation" and any(validation):
        found[VALIDATION] = validation
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
    return Score(name, title(name), is_proportion(name) or name == VALIDATION, estimates)


def score_notes(columns: Sequence[Score]) -> list[str]:
    """A sentence for each kind of interval, with the columns that have it."""
    together: dict[str, list[str]] = {}
    for column in columns:
        if note := footnote(column.estimates):
            together.setdefault(note, []).append(column.title)
    return [f"Intervals of {', '.join(map(_lower, titles))}: {note}." for note, titles in together.items()]


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


def _lower(title: str) -> str:
    return title if title[:2].isupper() or title.startswith("Brier") else title[0].lower() + title[1:]


def headline(study: StudyFolder) -> list[VariantRuns]:
    """The variants with a finished run; the others are in `unfinished`."""
    return [variant for variant in study.variants if variant.finished]


def seed_dependence(study: StudyFolder) -> list[str]:
    """A sentence for each variant whose seeds differ in accuracy by more than their images explain.
    The threshold is the studentized range of as many samples of n independent images; seeds on one
    test split differ by no more than that."""
    from scipy.stats import studentized_range

    sentences = []
    for variant in headline(study):
        found = [
            e for run in variant.finished if (e := run.record.scores.get(study.split, {}).get("accuracy"))
        ]
        if len(found) < 2:
            continue
        low, high, n = min(e.value for e in found), max(e.value for e in found), min(e.n for e in found)
        mean = math.fsum(e.value for e in found) / len(found)
        explained = float(studentized_range.ppf(0.95, len(found), math.inf)) * math.sqrt(
            mean * (1 - mean) / n
        )
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
    return [f"{name}: {percent(estimate)} % of the {split} split is classified correctly{instead}."]


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
        sentences.append(f"The classes are unbalanced: balanced accuracy is {percent(even)} %.")
    return sentences


def accuracy_chart(study: StudyFolder) -> Chart | None:
    """Accuracy of every variant with its interval, against the majority-class baseline."""
    rows = []
    metric = study.comparison.metric if study.comparison else "accuracy"
    for variant in headline(study):
        estimate = variant.score(study.split, metric)
        if estimate and math.isfinite(estimate.value):
            row = Interval(
                variant.name,
                100 * estimate.value,
                100 * estimate.low,
                100 * estimate.high,
                variant.place,
                f"{100 * estimate.value:.1f}",
            )
            on_train = variant.score("train", metric) if study.split != "train" else None
            rows.append(replace(row, beside=100 * on_train.value) if on_train else row)
    if not rows:
        return None
    baselines = (
        [b.value for r in headline(study) if (b := r.score(study.split, "majority_baseline"))]
        if metric == "accuracy"
        else []
    )
    reference = (100 * baselines[0], f"majority class {100 * baselines[0]:.1f}") if baselines else None
    caption = f"{title(metric)} on the {study.split} split, with its interval"
    key = " (open circle: on the training split)" if any(math.isfinite(row.beside) for row in rows) else ""
    x_label = f"{metric.replace('_', ' ')}, %{key}"
    return interval_chart(rows, title=caption, x_label=x_label, reference=reference, label=READABLE)


def cost_charts(study: StudyFolder) -> list[Chart]:
    """Accuracy against cost: time, multiply-adds and parameters. A cost that is the same for all is
    not drawn."""
    charts = []
    for caption, unit, measure, write in COSTS:
        marks = []
        for variant in headline(study):
            cost, e = variant.mean(measure), variant.score(study.split, "accuracy")
            if cost is not None and e:
                written = f"{percent(e)} %, {write(cost)}"
                marks.append(
                    Mark(variant.name, cost, 100 * e.value, 100 * e.low, 100 * e.high, variant.place, written)
                )
        xs = [mark.x for mark in marks]
        if len(set(xs)) > 1:
            log = min(xs) > 0 and max(xs) / min(xs) > 20
            label = f"{unit}, logarithmic" if log else unit
            charts.append(scatter_chart(marks, title=caption, x_label=label, y_label="accuracy, %", log=log))
    return charts


def _multiply_adds(run: Run) -> float | None:
    return run.record.layers.multiply_adds if run.record.layers else None


def _parameters(run: Run) -> float | None:
    return run.record.layers.parameters if run.record.layers else None


COSTS: Sequence[tuple[str, str, Callable[[Run], float | None], Callable[[float], str]]] = (
    (
        "Accuracy against time",
        "seconds of training, mean of a run",
        lambda run: run.record.training.seconds,
        duration,
    ),
    (
        "Accuracy against work",
        "multiply-adds for one image",
        _multiply_adds,
        lambda n: f"{count(round(n))} multiply-adds",
    ),
    ("Accuracy against size", "parameters", _parameters, lambda n: f"{count(round(n))} parameters"),
)


def title(name: str) -> str:
    if name.startswith("top") and name[3:].isdecimal():
        return f"Top-{name[3:]}"
    return TITLES.get(name, name.replace("_", " ").capitalize())
