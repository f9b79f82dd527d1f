"""Studies and runs of a folder as they grow: what has ended, how far the others are, and their curves."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from stresslens.core.errors import StresslensError
from stresslens.core.format import percent
from stresslens.core.text import duration
from stresslens.report.curves import Charts, learning_curves, learning_series
from stresslens.report.load import Run, StudyFolder, load_study
from stresslens.report.page import PAGE
from stresslens.training.epoch_log import EpochTime

SILENT = 120
"""Seconds without a new line or checkpoint, after which a run that has not ended is said to be silent."""
GROWING = ("record.json", "metrics.jsonl", "timings.jsonl", "checkpoint.pt")
"""Files of a run that change while it is trained."""


@dataclass(frozen=True)
class WatchedRun:
    """A run as the page lists it."""

    run: Run
    now: float

    @property
    def ended(self) -> bool:
        return self.run.record.status != "running"

    @property
    def epoch(self) -> int:
        """The last epoch that was logged; 0 before the first."""
        return self.run.metrics[-1].epoch if self.run.metrics else 0

    @cached_property
    def epochs(self) -> int | None:
        """The most that it is trained for."""
        try:
            config = yaml.safe_load(self.run.config)
        except yaml.YAMLError:
            return None
        train = config.get("train") if isinstance(config, dict) else None
        found = train.get("epochs") if isinstance(train, dict) else None
        return found if isinstance(found, int) else None

    @property
    def share(self) -> float:
        """How much of the training is done, 0 to 1."""
        return 1.0 if self.ended else min(1.0, self.epoch / self.epochs) if self.epochs else 0.0

    @property
    def left(self) -> float | None:
        """Seconds that the rest of the training takes at the mean pace so far; None where it is not known."""
        times = self._times
        if self.ended or self.epochs is None or not times:
            return None
        return max(0, self.epochs - times[-1].epoch) * times[-1].seconds / times[-1].epoch

    @property
    def silent(self) -> float:
        """Seconds since a file of the run has changed."""
        files = (self.run.folder.path / name for name in GROWING)
        return self.now - max((file.stat().st_mtime for file in files if file.exists()), default=self.now)

    @property
    def status(self) -> str:
        """In words: how it has ended, or how far it is."""
        record = self.run.record
        if self.ended:
            return record.status + (f": {record.message}" if record.message else "")
        if self.silent > SILENT:
            return f"silent for {duration(self.silent)}: stopped, or in a long step"
        if self.epochs is None or not self.epoch:
            return "starting"
        if self.epoch >= self.epochs:
            return "trained; now evaluated"
        left = "" if self.left is None else f", at most {duration(self.left)} left"
        return f"epoch {self.epoch} of {self.epochs}{left}"

    @property
    def figure(self) -> str:
        """The score on the study's split once it has one, and before it the last validation accuracy."""
        scores = self.run.record.scores
        for split in ("test", "validation"):
            if (accuracy := scores.get(split, {}).get("accuracy")) is not None:
                return f"{split} {percent(accuracy)}"
        curve = self.run.curve("validation", "accuracy")
        return f"validation {100 * curve[-1][1]:.1f} after epoch {curve[-1][0]:g}" if curve else ""

    @cached_property
    def _times(self) -> list[EpochTime]:
        try:
            return EpochTime.read_lines(self.run.folder.path / "timings.jsonl", skip_other_forms=True)
        except OSError:
            return []


@dataclass(frozen=True)
class WatchedStudy:
    """A study's folder as the page shows it, at a time."""

    study: StudyFolder
    root: Path
    now: float

    @cached_property
    def runs(self) -> list[WatchedRun]:
        return [WatchedRun(run, self.now) for run in self.study.runs]

    @property
    def waiting(self) -> int:
        """The runs that study.json asks for and that have not begun."""
        return sum(len(variant.missing) for variant in self.study.variants if variant.listed)

    @property
    def growing(self) -> bool:
        return any(not run.ended and run.silent <= SILENT for run in self.runs)

    @property
    def said(self) -> str:
        """How many runs have ended, and what is left."""
        ended, everything = sum(run.ended for run in self.runs), len(self.runs) + self.waiting
        said = f"{ended} of {everything} run{'' if everything == 1 else 's'} ended"
        known = [run.left for run in self.runs if run.left is not None and run.silent <= SILENT]
        if not known or self.waiting:
            return said
        return f"{said}; at most {duration(max(known))} of training left"

    @property
    def charts(self) -> Charts | None:
        return learning_curves(learning_series(self.study))

    def report(self, folder: Path) -> str | None:
        """The address of a page that was written in a folder; None without one."""
        page = folder / PAGE
        return f"/reports/{page.relative_to(self.root).as_posix()}" if page.is_file() else None


Known = dict[Path, tuple[float, StudyFolder]]
"""Studies that were read, by their folders, and when each had changed last."""


def watched_studies(root: Path, known: Known | None = None) -> list[WatchedStudy | tuple[str, str]]:
    """The studies below a folder, those that changed last first; a name and a reason for one that cannot be
    read. Those that are `known` and have not changed are not read again."""
    known = {} if known is None else known
    found: list[tuple[float, WatchedStudy | tuple[str, str]]] = []
    for folder in _study_folders(root):
        when = changed(folder)
        try:
            if folder not in known or known[folder][0] != when:
                known[folder] = (when, load_study(folder))
            study: WatchedStudy | tuple[str, str] = WatchedStudy(known[folder][1], root, time.time())
        except (StresslensError, OSError) as error:
            study = (folder.name, str(error))
        found.append((when, study))
    return [study for _, study in sorted(found, key=lambda each: -each[0])]


def changed(folder: Path) -> float:
    """When a file of a study's runs was last changed; 0 without any."""
    return max(_changes(folder), default=0.0)


def _changes(folder: Path) -> Iterator[float]:
    for file in (
        folder / "study.json",
        *(each for name in GROWING for each in folder.glob(f"*/seed-*/{name}")),
    ):
        try:
            yield file.stat().st_mtime
        except OSError:  # replaced at this moment
            continue


def _study_folders(root: Path) -> Sequence[Path]:
    """The folder itself where it is a study's, and else those below it that hold runs."""
    if (root / "study.json").is_file() or any(root.glob("*/seed-*/record.json")):
        return [root]
    records = root.glob("*/*/seed-*/record.json")
    return list(dict.fromkeys(record.parent.parent.parent for record in sorted(records)))


def state_of(root: Path) -> dict[str, Any]:
    """What the page compares: when each study has changed last."""
    return {folder.name: changed(folder) for folder in _study_folders(root)}
