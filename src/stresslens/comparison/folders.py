"""Compare folders (`stresslens compare A B …`): runs, variants, or the contrasts of a study."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from stresslens.comparison import ablation, accuracy, claims, robustness
from stresslens.comparison.corrected_labels import CorrectedTests
from stresslens.comparison.cost_table import CostTable
from stresslens.comparison.margins import MarginQuestion
from stresslens.comparison.measured_run import measured_of
from stresslens.comparison.schema import ComparisonFile
from stresslens.comparison.tested_run import ONLY_RUN, Tested, VariantFolders, tested_of, variants_of
from stresslens.comparison.verdict_changes import VerdictChanges
from stresslens.comparison.without_copies import TestsWithoutCopies
from stresslens.config.run_names import ShortNames
from stresslens.config.study_record import FILE, read_study_record
from stresslens.core.errors import ConfigError
from stresslens.core.label_corrections import LabelCorrections
from stresslens.core.run_folder import RunFolder
from stresslens.core.spelling import closest
from stresslens.core.types import Estimate
from stresslens.evaluation.record import read_record
from stresslens.evaluation.run_data import DataPlace
from stresslens.metrics.measures import measure_of

Kind = Literal["run", "recipe", "study"]
KIND_NAMES: dict[Kind, str] = {"run": "run", "recipe": "variant", "study": "study"}
"""The kinds in words; "recipe" stays in the JSON."""


@dataclass(frozen=True)
class FolderComparison:
    """The result of `compare`.

    `kind` says what the folders are: runs (do these weights differ?), variants (the value is
    "recipe"; do they differ over the seeds that both have finished?), or a study. `regressions` are
    the verdicts on runs or variants that are really worse than the first. `changes` says what corrections
    of labels, or leaving out copies, do to the verdicts.
    """

    kind: Kind
    comparison: ComparisonFile
    regressions: list[str]
    changes: VerdictChanges | None = None

    @property
    def gate_missed(self) -> list[str]:
        """A sentence for each that is not shown to be as good as the gate asks, with what it would take."""
        found = [c.not_worse for c in self.comparison.contrasts if c.not_worse and not c.not_worse.shown]
        return [f"{each.verdict}{f'; {each.plan}' if each.plan else ''}" for each in found]

    def renamed(self, names: ShortNames) -> FolderComparison:
        """With the short names of variants."""
        comparison = ComparisonFile.model_validate(names.replaced(self.comparison.as_json()))
        changes = None if self.changes is None else self.changes.renamed(names)
        return FolderComparison(self.kind, comparison, names.replaced(self.regressions), changes)

    def as_json(self) -> dict[str, Any]:
        changes = {} if self.changes is None else {self.changes.name: self.changes.as_json()}
        return {
            "kind": self.kind,
            **self.comparison.as_json(),
            "regressions": self.regressions,
            **changes,
        }


def compare_corrected(
    paths: Sequence[Path],
    corrections: Path,
    *,
    split: str = "test",
    ask: float | None = None,
    trust: bool = False,
    data: DataPlace = None,
    question: MarginQuestion | None = None,
) -> FolderComparison:
    """As `compare_folders` with the accuracy, by corrected labels of the split's images; `changes` says
    which verdicts are others than before.

    The data of the runs are read as `data_of` does with `trust` and `data`. Raises DataError for
    corrections that do not belong to them."""
    read = CorrectedTests(LabelCorrections.read(corrections), trust, data)
    return _compared_anew(paths, read, split, ask, question)


def compare_without_copies(
    paths: Sequence[Path],
    *,
    split: str = "test",
    ask: float | None = None,
    question: MarginQuestion | None = None,
) -> FolderComparison:
    """As `compare_folders` with the accuracy, without the images that have a copy in an earlier split;
    `changes` says which verdicts are others than before. Raises ConfigError where a run's record does not
    say which images these are."""
    return _compared_anew(paths, TestsWithoutCopies(), split, ask, question)


def _compared_anew(
    paths: Sequence[Path],
    read: CorrectedTests | TestsWithoutCopies,
    split: str,
    ask: float | None,
    question: MarginQuestion | None,
) -> FolderComparison:
    before = compare_folders(paths, split=split, ask=ask, question=question)
    after = compare_folders(paths, split=split, ask=ask, read=read, question=question)
    changes = read.changes(split, before.comparison.contrasts, after.comparison.contrasts)
    return replace(after, changes=changes)


def check_options(
    metric: str, *, costs: bool = False, corrections: bool = False, without_copies: bool = False
) -> None:
    """Raises ConfigError for options of a comparison that do not go together."""
    if without_copies and (corrections or metric != "accuracy"):
        other = "--corrections" if corrections else "--metric"
        raise ConfigError(f"--without-copies is for the accuracy alone; leave out {other}")
    if corrections and metric != "accuracy":
        raise ConfigError(
            f"--metric {metric}: labels are corrected for the accuracy only; leave out --corrections"
        )
    if costs and metric != "cost":
        raise ConfigError(f"--costs is for --metric cost; leave it out with --metric {metric}")


# long: what the caller gives is told apart, one kind after the other
def compare_folders(
    paths: Sequence[Path],
    *,
    split: str = "test",
    ask: float | None = None,
    metric: str = "accuracy",
    costs: CostTable | None = None,
    read: Callable[[RunFolder, str], Tested] | None = None,
    question: MarginQuestion | None = None,
) -> FolderComparison:
    """Compare the folders of runs or variants with the first, or make the contrasts of one study
    again.

    `metric` is one of `metrics.measures`, or robust@RADIUS: the share of the attacked images that no
    attack broke at any radius up to this one. `costs` are those of the metric `cost`. `read` loads the
    results of a run; by default as the metric says. `question` is what is asked about margins; with a
    gate, its baseline is compared with all others.

    Raises ConfigError if the paths are no such folders, of different kinds, unfinished, or were not
    tested on the same images.
    """
    question = question or MarginQuestion()
    if question != MarginQuestion() and not measure_of(metric).is_share:
        raise ConfigError(f"margins are of scores in percent, such as the accuracy; {metric} is none")
    check_options(metric, costs=costs is not None)
    kinds = {path: folder_kind(path) for path in paths}
    if len(set(kinds.values())) > 1:
        listed = ", ".join(f"{path} is a {KIND_NAMES[kind]}" for path, kind in kinds.items())
        raise ConfigError(f"compare runs with runs, or variants with variants: {listed}")
    kind = kinds[paths[0]]
    if kind == "study":
        if len(paths) > 1:
            raise ConfigError(
                "compare takes one study and makes its contrasts again; "
                "to compare variants, give their folders"
            )
        return FolderComparison(
            kind, _compared_study(paths[0], split, ask, metric, costs, read, question), []
        )
    if len(paths) < 2:
        raise ConfigError(f"{paths[0]} is a {KIND_NAMES[kind]}; give at least one more to compare it with")
    names = _names(paths, kind)
    variants = {name: _seeds(path, kind, split) for name, path in zip(names, paths)}
    baseline = next(iter(variants))
    if question.gate is not None:
        baseline = question.gate.baseline_of(dict(zip(variants, paths)))
    against = "against the first" if baseline == next(iter(variants)) else f"against {baseline}"
    contrasts = [(against, baseline, other) for other in variants if other != baseline]
    compared = accuracy.compare_accuracy(
        variants,
        contrasts,
        split=split,
        ask=ask,
        metric=metric,
        read=read or _reader(metric, variants, split, costs),
        margins=question.margins({}),
    )
    if compared.refused:
        raise ConfigError("\n".join(compared.refused))
    worse = [pair.verdict for pair in compared.contrasts if pair.better < 0]
    return FolderComparison(kind, compared, worse)


def _compared_study(
    folder: Path,
    split: str,
    ask: float | None,
    metric: str,
    costs: CostTable | None,
    read: Callable[[RunFolder, str], Tested] | None,
    question: MarginQuestion,
) -> ComparisonFile:
    study = read_study_record(folder)
    contrasts, margins = study.contrasts, question.margins(study.margins if metric == "accuracy" else {})
    robust = metric.startswith("robust@")
    variants = variants_of(
        folder,
        lambda run: (
            any(run.path.glob("robustness/*/result.json")) if robust else run.predictions(split).exists()
        ),
    )
    read = read or _reader(metric, variants, split, costs)
    if question.gate is not None:
        named = {name: folder / name for name, seeds in variants.items() if seeds}
        baseline = question.gate.baseline_of(named, study.own_names)
        if len(named) < 2:
            raise ConfigError(f"{folder} has only one variant with results, so there is none to check")
        contrasts = [(f"against {baseline}", baseline, other) for other in named if other != baseline]
    compared = accuracy.compare_accuracy(
        variants, contrasts, split=split, ask=ask, metric=metric, read=read, margins=margins
    )
    if question.gate is not None and compared.refused:
        raise ConfigError("\n".join(compared.refused))
    if metric == "accuracy" and question.gate is None:
        compared.ablation = ablation.study_ablation(folder, compared)
        compared.claims = claims.study_claims(folder, compared)
    return compared


def _reader(
    metric: str, variants: VariantFolders, split: str, costs: CostTable | None = None
) -> Callable[[RunFolder, str], Tested]:
    """The function that loads what a metric needs from a run of these; of several attacks at a radius,
    the one that all runs share. Raises ConfigError."""
    if metric == "accuracy":
        return tested_of
    if not metric.startswith("robust@"):
        return lambda folder, split: measured_of(folder, split, metric, costs)
    eps, key = robustness.robust_at(metric)
    runs = [run for seeds in variants.values() for run in seeds.values()]
    key = robustness.shared_key(runs, eps, key, split=split)
    return lambda folder, split: robustness.attacked_of(folder, eps, key, split=split)


def figure_of(path: Path, *, split: str = "test", metric: str = "accuracy") -> Estimate:
    """A score of a run, or the accuracy of a variant over its seeds, with its interval.

    `metric` is as in `compare_folders`, recounted from the saved predictions; or for a run any score
    of its record. Raises ConfigError if there is no such figure.
    """
    kind = folder_kind(path)
    if kind == "study":
        raise ConfigError(f"{path} is a study; give the folder of one of its variants or runs")
    if metric != "accuracy" and not metric.startswith("robust@"):
        if kind != "run":
            raise ConfigError(f"of {path}, which has several seeds, only accuracy is known; give one run")
        scores = read_record(RunFolder(path)).scores
        if split not in scores:
            raise ConfigError(f"{path} has no scores of {split}; it has {', '.join(scores) or 'none'}")
        if metric not in scores[split]:
            raise ConfigError(f"{path} has no score {metric!r}; {closest(metric, list(scores[split]))}")
        return scores[split][metric]
    seeds = {path.name: _seeds(path, kind, split)}
    compared = accuracy.compare_accuracy(
        seeds, [], split=split, metric=metric, read=_reader(metric, seeds, split)
    )
    if path.name not in compared.recipes:
        raise ConfigError(f"the seeds of {path} were tested on different images; give the folder of one run")
    return compared.recipes[path.name]


def folder_kind(path: Path) -> Kind:
    """The kind of a folder. Raises ConfigError if it is none of the three."""
    if (path / "record.json").is_file():
        return "run"
    if (path / "study.json").is_file():
        return "study"
    if any(path.glob("seed-*/record.json")):
        return "recipe"
    raise ConfigError(
        f"{path} is not the folder of a run (…/seed-0), of a variant (…/VARIANT) or of a study; "
        "`stresslens list runs` shows them"
    )


def _names(paths: Sequence[Path], kind: Kind) -> list[str]:
    """The shortest path endings that differ from each other; for runs at least VARIANT/seed-K."""
    for length in range(2 if kind == "run" else 1, max(len(path.resolve().parts) for path in paths)):
        names = ["/".join(path.resolve().parts[-length:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    raise ConfigError("a folder is given twice: " + ", ".join(map(str, paths)))


def _listed_seeds(variant: Path) -> list[int] | None:
    """The seeds of recorded predictions that study.json lists: those of the last command; None without it."""
    study = variant.resolve().parent
    if not (study / FILE).is_file():
        return None
    return read_study_record(study).seeds_of(variant.resolve().name)


def _seeds(path: Path, kind: Kind, split: str) -> dict[str, RunFolder]:
    """The finished runs of a folder by seed. A single run gets the same key whatever its seed, so
    that runs of different seeds are a pair."""
    if kind == "run":
        record = read_record(RunFolder(path))
        if not record.usable:
            raise ConfigError(
                f"{path} is not finished ({record.status}); run the command that made it again to resume it"
            )
        return {ONLY_RUN: RunFolder(path)}
    folders = [RunFolder(record.parent) for record in sorted(path.glob("seed-*/record.json"))]
    records = {folder: read_record(folder) for folder in folders}
    listed = _listed_seeds(path) if any(record.source for record in records.values()) else None
    finished = {
        folder.path.name: folder
        for folder, record in records.items()
        if record.usable and (listed is None or record.seed in listed)
    }
    if not finished:
        raise ConfigError(f"{path} has no finished seed; run the command that made it again to resume it")
    return finished
