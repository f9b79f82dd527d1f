"""Read the runs of a study from their files. This module has no HTML and loads no model."""

from __future__ import annotations

import json
import math
import shlex
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from stresslens.comparison.schema import ComparisonFile
from stresslens.comparison.sweep_file import SweepFile
from stresslens.comparison.transfer_file import TransferFile
from stresslens.config.run_names import ShortNames
from stresslens.config.study_record import StudyRecord, short_names_of
from stresslens.core.errors import ConfigError, Notice
from stresslens.core.files import UnreadableRun, read_json
from stresslens.core.json_file import JsonFile, first_problem
from stresslens.core.run_folder import Environment, RunFolder, run_folders
from stresslens.core.score_units import is_within_one
from stresslens.core.types import Estimate
from stresslens.evaluation.example_file import Example
from stresslens.evaluation.record import RunRecord
from stresslens.metrics.random_effects import over_seeds
from stresslens.report.stress import Stress, stress_of
from stresslens.training.epoch_log import EpochMetrics

T = TypeVar("T", bound=JsonFile)


@dataclass(frozen=True)
class Run:
    """One folder of one seed, as far as it can be read."""

    folder: RunFolder
    name: str
    seed: int
    record: RunRecord
    overrides: Sequence[str] = ()
    """The settings of the command line, which the name may leave out."""

    @property
    def finished(self) -> bool:
        return self.record.usable

    @cached_property
    def classes(self) -> list[str]:
        """The names of the classes, as shown."""
        return [name or "(no name)" for name in self.record.classes]

    @cached_property
    def metrics(self) -> list[EpochMetrics]:
        """The lines of metrics.jsonl that are whole and of its form."""
        try:
            return EpochMetrics.read_lines(self.folder.metrics, skip_other_forms=True)
        except OSError:
            return []

    def curve(self, *keys: str) -> list[tuple[float, float]]:
        """(epoch, value) of each logged epoch that has a finite value there. The training loss begins
        at epoch 0, with that of the first batch before any update."""
        values = [(float(line.epoch), line.figure(*keys)) for line in self.metrics]
        if keys == ("loss",) and values:
            values.insert(0, (0.0, self.record.training.first_loss))
        return [(epoch, value) for epoch, value in values if value is not None and math.isfinite(value)]

    @cached_property
    def environment(self) -> dict[str, str]:
        """environment.json with dotted keys and everything as text."""
        try:
            return dict(_flat("", Environment.read(self.folder.environment).as_json()))
        except UnreadableRun:
            return {}

    @property
    def title(self) -> str:
        return " · ".join(filter(None, [self.record.study, self.name, f"seed {self.seed}"]))

    @cached_property
    def config(self) -> str:
        path: Path = self.folder.config
        return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""

    @cached_property
    def stress(self) -> Stress:
        """The run's results under attacks, corruptions and certificates."""
        return stress_of(self.folder)

    @cached_property
    def examples(self) -> list[Example]:
        return examples_in(self.folder.examples)


def examples_in(folder: Path) -> list[Example]:
    """The entries of a folder's examples.json; none where it cannot be read."""
    try:
        return [Example.model_validate(entry) for entry in read_json(folder / "examples.json")]
    except (UnreadableRun, ValidationError, TypeError):
        return []


@dataclass(frozen=True)
class VariantRuns:
    """The seeds of one variant. `listed` is False if study.json does not name it, or no longer
    does."""

    name: str
    runs: tuple[Run, ...]
    place: int
    pooled: Estimate | None = None
    pooled_as: tuple[str, str] = ("test", "accuracy")
    """The split and the score of `pooled`."""
    listed: bool = True
    missing: tuple[int, ...] = ()

    @property
    def folder(self) -> Path:
        """Raises IndexError where the variant has no run."""
        return self.runs[0].folder.path.parent

    @cached_property
    def finished(self) -> list[Run]:
        return [run for run in self.runs if run.finished]

    @property
    def shown(self) -> Run | None:
        """The seed whose details are shown: the first finished one, else the first."""
        return next(iter([*self.finished, *self.runs]), None)

    def score(self, split: str, name: str) -> Estimate | None:
        """The pooled estimate if the comparison has it; else the only seed's own estimate, or the
        mean over the finished seeds, with an interval no narrower than theirs over the images."""
        if (split, name) == self.pooled_as and self.pooled:
            return self.pooled
        found = [s for run in self.finished if (s := _score_of(run, split, name)) and math.isfinite(s.value)]
        if name == "majority_baseline":  # a property of the images, the same for every seed
            found = found[:1]
        return over_seeds(found, bounded=is_within_one(name))

    def mean(self, of: Callable[[Run], float | None]) -> float | None:
        """The mean of a number over the finished seeds that have it."""
        known = [value for run in self.finished if (value := of(run)) is not None]
        return math.fsum(known) / len(known) if known else None


def _score_of(run: Run, split: str, name: str) -> Estimate | None:
    """A run's score. Where its temperature did not help, its calibrated scores are the raw ones."""
    scores, calibration = run.record.scores.get(split, {}), run.record.calibration
    if name not in scores and calibration and not calibration.helps:
        name = name.removesuffix("_calibrated")
    return scores.get(name)


@dataclass(frozen=True)
class StudyFolder:
    name: str
    folder: Path
    variants: tuple[VariantRuns, ...]
    split: str
    file: StudyRecord | None = None
    comparison: ComparisonFile | None = None
    transfers: TransferFile | None = None
    sweeps: Mapping[str, SweepFile] = field(default_factory=dict)
    """The sweeps that chose the settings of variants, by the variant's name."""
    shared: Sequence[str] = ()
    """The overrides that all variants share, which their names leave out."""
    keys: Sequence[str] = ()
    """The keys of the values that stand in the variants' names alone."""

    @cached_property
    def runs(self) -> list[Run]:
        return [run for variant in self.variants for run in variant.runs]


def load_study(folder: Path) -> StudyFolder:
    """Load what a report needs from a study's folder.

    A damaged comparison.json is left out, with a Notice. Raises ConfigError if there is no run, and
    UnreadableRun if study.json or transfers.json is damaged.
    """
    found = [read_run(each) for each in run_folders(folder)] if folder.is_dir() else []
    if not found:
        raise ConfigError(
            f"there is no run in {folder}: expected {folder}/<run>/seed-<k>/record.json; "
            "`stresslens run` makes runs"
        )
    if misplaced := [
        run.folder.path for run in found if run.folder.path.resolve().parent.parent != folder.resolve()
    ]:
        raise ConfigError(
            f"{folder} is not a study's folder: {misplaced[0]} belongs to "
            f"{misplaced[0].resolve().parent.parent}; give that folder"
        )
    file = _optional(folder / "study.json", StudyRecord)
    comparison = _comparison(folder / "comparison.json")
    listed = list(dict.fromkeys(file.runs)) if file else []
    names = list(dict.fromkeys([*listed, *(run.name for run in found)]))
    short = short_names_of(file, names)
    recorded, file, comparison = file, _renamed(file, short), _renamed(comparison, short)
    found = [_named(run, recorded, short) for run in found]
    listed, names = [short.get(name) for name in listed], [short.get(name) for name in names]
    variants = []
    for place, name in enumerate(names):
        runs = tuple(sorted((run for run in found if run.name == name), key=lambda run: run.seed))
        expected = file.seeds_of(name) if file else []
        missing = tuple(seed for seed in expected if seed not in {run.seed for run in runs})
        variants.append(VariantRuns(name, runs, place, listed=not file or name in listed, missing=missing))
    title = (file.name if file else found[0].record.study) or folder.resolve().name
    split = comparison.split if comparison else split_of(found)
    if comparison:
        pooled = comparison.recipes
        of = (comparison.split, comparison.metric)
        variants = [replace(each, pooled=pooled.get(each.name), pooled_as=of) for each in variants]
    sweep_files = {
        each.name: _optional(each.folder / "sweep.json", SweepFile) for each in variants if each.runs
    }
    sweeps = {name: sweep for name, sweep in sweep_files.items() if sweep is not None}
    return StudyFolder(
        title,
        folder,
        tuple(variants),
        split,
        file,
        comparison,
        _renamed(_optional(folder / "transfers.json", TransferFile), short),
        sweeps,
        short.shared,
        short.keys,
    )


def split_of(runs: Sequence[Run]) -> str:
    """The split whose scores count: test if any run has it, else validation."""
    return "test" if any("test" in run.record.scores for run in runs) else "validation"


def read_run(folder: RunFolder) -> Run:
    """Read a run. If its record cannot be read, its status says so."""
    try:
        record = RunRecord.model_validate(read_json(folder.record))
    except UnreadableRun as error:
        record = RunRecord(status="unreadable", message=str(error.__cause__ or error))
    except ValidationError as error:
        record = RunRecord(status="unreadable", message=f"record.json: {first_problem(error)}")
    digits = folder.path.name.removeprefix("seed-")
    seed = record.seed if record.seed is not None else int(digits) if digits.isdecimal() else 0
    return Run(
        folder, record.run if record.run is not None else folder.path.resolve().parent.name, seed, record
    )


def read_run_of(home: Path, folder: RunFolder) -> Run:
    """Read a run as a page of the study in `home`, with its short name."""
    run, study = read_run(folder), _optional(home / "study.json", StudyRecord)
    names = [*(study.runs if study else ()), *(each.path.parent.name for each in run_folders(home))]
    return _named(run, study, short_names_of(study, list(dict.fromkeys(names))))


def _named(run: Run, study: StudyRecord | None, short: ShortNames) -> Run:
    overrides = study.overrides.get(run.name, []) if study else []
    return replace(run, name=short.get(run.name), overrides=tuple(overrides))


def _renamed(file: T | None, short: ShortNames) -> T | None:
    """The content of a file with the short names of variants."""
    plain = None if file is None else file.as_json()
    changed = short.replaced(plain)
    return file if file is None or changed == plain else type(file).model_validate(changed)


def _comparison(path: Path) -> ComparisonFile | None:
    try:
        return _optional(path, ComparisonFile)
    except UnreadableRun as error:
        warnings.warn(Notice(f"the page is written without the comparison: {error}"), stacklevel=2)
        return None


def _optional(path: Path, kind: type[T]) -> T | None:
    return kind.read(path) if path.exists() else None


def _flat(prefix: str, values: dict[str, Any]) -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            pairs += _flat(f"{name}.", value)
        elif isinstance(value, list) and all(isinstance(part, str) for part in value):
            pairs.append((name, shlex.join(value)))
        else:
            pairs.append((name, value if isinstance(value, str) else json.dumps(value)))
    return pairs
