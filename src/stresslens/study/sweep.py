"""A sweep: trials are carried out like any run but without test, for one owner that asks and tells;
the best becomes the run."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from functools import cached_property, partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from stresslens.comparison.setting_importance import Standing, importance_verdicts
from stresslens.comparison.sweep_file import SweepFile, Trial
from stresslens.config import study_file
from stresslens.config.old_words import in_words_of_0_1
from stresslens.config.own_plugins import source_digests
from stresslens.config.schema import EVALUATION_KEYS, RESUME_SAFE_KEYS, VariantConfig
from stresslens.config.search_space import space_settings
from stresslens.config.selection import RULES, SelectionRule
from stresslens.config.sweep_validation import recipe_with
from stresslens.core.data import Data
from stresslens.core.errors import ConfigError, Problem, Problems, TrainingDiverged
from stresslens.core.files import UnreadableRun, write_atomically, write_json
from stresslens.core.run_folder import RunFolder
from stresslens.core.types import Estimate
from stresslens.evaluation.record import RunRecord, read_record
from stresslens.metrics.intervals import wilson
from stresslens.study.executors import Executor
from stresslens.training import best_epoch, initial_weights
from stresslens.training.autotune import autotune, compute_config
from stresslens.training.epoch_log import EpochMetrics
from stresslens.training.loop import Show
from stresslens.training.task import Task, load_data

if TYPE_CHECKING:
    from stresslens.study.sweep_journal import SweepJournal

FILE = "sweep.json"


def swept(
    study: study_file.Study,
    folder: Path,
    place: Executor,
    show: Callable[[Task], Show],
    say: Callable[[str], None],
) -> study_file.Study:
    """The study with each run's best settings by validation, after its trials; `say` is told how
    each of them did.

    The best trial's training is handed to the run's first seed, so that it is not done twice.
    Raises ConfigError, before any training, where trials cannot be judged or the folder holds
    another sweep; TrainingDiverged where all trials of a run diverge.
    """
    trials = [Trials(study, run, folder / run.name, say) for run in study.runs]
    for each in trials:
        each.check()
    return replace(study, runs=[each.best(place, show) for each in trials])


class Trials:
    """The trials of one run: their folders (trials/000, …), the journal of what was asked, and
    sweep.json, which tells of both."""

    def __init__(
        self, study: study_file.Study, run: study_file.Variant, home: Path, say: Callable[[str], None]
    ) -> None:
        assert study.sweep is not None
        self.study, self.run, self.sweep, self.home, self.say = study, run, study.sweep, home, say
        self.settings = space_settings(self.sweep, [])
        self.values = study_file.as_values(run.config) | {
            key: getattr(VariantConfig(), key) for key in EVALUATION_KEYS
        }
        self.values["train"]["watch"] = [split for split in run.config.train.watch if split != "test"]
        self.compute: dict[str, Any] = {}
        """Device, precision, threads and memory format, settled once for all trials."""
        self.rows: dict[int, Trial] = {}
        """Of sweep.json; that of a trial which was told stays."""

    def check(self) -> None:
        """Raises ConfigError unless every candidate can be judged by one metric, and the folder
        holds this sweep or none."""
        if self.data.validation is None:
            raise ConfigError(
                f"sweep: trials are judged by validation, which {self.data.name} does not have here; set `validation:`"
            )
        tried = self.sweep.settings or [
            {setting.key: value} for setting in self.settings for value, _ in setting.ends
        ]
        of_all = {self.selected_by(self.config(settings)) for settings in tried}
        robust = [rule for rule in of_all if rule is not None and rule.needs_robust_accuracy]
        if self.sweep.metric == "auto" and robust and len(of_all) > 1:
            clean = ", ".join(rule.name for rule in RULES.values() if not rule.needs_robust_accuracy)
            raise ConfigError(
                f"sweep.metric: some trials harden and others do not; say what all are judged by ({clean})"
            )
        losses = {str([self.config(each).train.loss, self.config(each).train.objective]) for each in tried}
        if self.metric.needs_equal_losses and len(losses) > 1:
            raise ConfigError(
                f"sweep.metric: {self.metric.name} holds trials to the loss each is trained by, and these "
                "differ; take accuracy"
            )
        if self.metric.needs_robust_accuracy and len(robust) < len(of_all):
            raise ConfigError(
                f"sweep.metric: {self.metric.name} needs train.select: robust, or an objective that "
                "hardens, in every trial"
            )
        other = [key for key in self.asked if self.known and self.known.asked.get(key) != self.asked[key]]
        if other:
            raise ConfigError(
                f"{self.home} holds another sweep (what differs: {', '.join(other)})\nkeep both: --out ELSEWHERE, or another "
                "name for the study or the run; replace it: delete the folder"
            )

    @cached_property
    def data(self) -> Data:
        return load_data(self.task(0, self.config({}), 1))

    def selected_by(self, config: VariantConfig) -> SelectionRule | None:
        """The rule that chooses the best epoch of a trial; None where the last epoch is taken."""
        return RULES.get(best_epoch.selection_rules(config.train, self.data, base=self.run.base)[0])

    @cached_property
    def metric(self) -> SelectionRule:
        """The rule by which trials are judged. `auto` is the one that chooses the epoch, or accuracy
        where the last epoch is taken."""
        if self.sweep.metric != "auto":
            return RULES[self.sweep.metric]
        first = self.config(self.sweep.settings[0] if self.sweep.settings else {})
        return self.selected_by(first) or RULES["accuracy"]

    @cached_property
    def asked(self) -> dict[str, Any]:
        """What makes it this sweep and no other."""
        code = source_digests([self.values, self.sweep.space, self.sweep.settings], base=self.run.base)
        train = {key: value for key, value in self.values["train"].items() if key not in RESUME_SAFE_KEYS}
        config = {**self.values, "train": train, "code": code}
        origin = initial_weights.published(self.run.config.model, None, base=self.run.base)
        begun = {"weights": origin.digest} if origin and origin.digest else {}
        return {
            "sweep": in_words_of_0_1({"sweep": asdict(self.sweep)})["sweep"],
            "recipe": in_words_of_0_1(config),
            "seed": self.study.seeds[0],
            "data": self.data.fingerprint,
        } | begun

    @cached_property
    def known(self) -> SweepFile | None:
        """sweep.json as an earlier attempt left it."""
        path = self.home / FILE
        if not path.exists():
            return None
        known = SweepFile.read(path)
        if not {"asked", "arithmetic"} <= known.model_fields_set:
            raise UnreadableRun(f"{path} tells of no sweep; delete {self.home} to start anew")
        return known

    def config(self, settings: dict[str, Any]) -> VariantConfig:
        """What a trial with these settings is trained by."""
        found: list[Problem] = []
        config = recipe_with(self.values, settings, {}, self.run.base, found)
        if config is None:
            raise Problems(found)
        return replace(config, train=replace(config.train, **self.compute))

    def task(self, number: int, config: VariantConfig, until: int) -> Task:
        folder, name = self.home / "trials" / f"{number:03d}", f"{self.run.name}-trial-{number:03d}"
        return Task(self.study.name, name, self.study.seeds[0], config, self.run.base, folder, until=until)

    def best(self, place: Executor, show: Callable[[Task], Show]) -> study_file.Variant:
        """The run with the best settings, once what is left of its trials has been carried out."""
        from stresslens.study.sweep_journal import SweepJournal  # Optuna takes its time to import

        with RunFolder(self.home / "trials").locked():
            self.compute = (self.known.arithmetic if self.known else {}) or self._settled(place)
            path = self.home / "trials" / "journal.log"
            self.journal: SweepJournal = SweepJournal(
                path, self.sweep, self.values, self.run.base, largest=self.metric.higher_is_better
            )
            self._write()
            if self.sweep.method == "halving":
                self._halve(place, show)
            else:
                place.carry_out(self._asked(), self._tell, show)
            best = self.journal.best
            if best is None:
                raise TrainingDiverged(
                    f"{self.home}: every trial of the sweep diverged; lower train.lr or set train.clip"
                )
            importance = self._write(ended=True).importance
            for line in importance.said if importance else ():
                self.say(f"{self.run.name}: {line}")
            chosen = ", ".join(
                f"{key}={json.dumps(value)}" for key, value in self.journal.settings(best).items()
            )
            self.say(f"{self.run.name}: goes on with trial {best}, the best on validation: {chosen}")
            config = self.config(self.journal.settings(best))
            watch, evaluation = (
                self.run.config.train.watch,
                {key: getattr(self.run.config, key) for key in EVALUATION_KEYS},
            )
            if config.train.watch == watch:
                self._hand_over(best)
        return replace(
            self.run, config=replace(config, train=replace(config.train, watch=watch), **evaluation)
        )

    def _settled(self, place: Executor) -> dict[str, Any]:
        config = self.config({})
        task = replace(self.task(0, config, config.train.epochs), folder=self.home / "trials")
        return asdict(compute_config(autotune([task], most_threads=place.threads)[0]))

    def _asked(self) -> Iterator[Task]:
        """What was left running, under its own number; then new trials, each asked when there is
        room for it."""
        for number in self.journal.running:
            yield self._whole(number)
        while len(self.journal) < self.sweep.size:
            yield self._whole(self.journal.ask())

    def _whole(self, number: int) -> Task:
        config = self.config(self.journal.settings(number))
        return self.task(number, config, config.train.epochs)

    def _tell(self, task: Task, outcome: RunRecord | TrainingDiverged) -> None:
        number = int(task.folder.name)
        value = None if isinstance(outcome, TrainingDiverged) else self.value(number, task.config)
        self.journal.tell(number, value)
        self._write()
        self._say(number, value, f"{self.journal.ended} of {self.sweep.size} ended")

    def _halve(self, place: Executor, show: Callable[[Task], Show]) -> None:
        """Successive halving (Jamieson & Talwalkar 2016), every rung after the one below it is complete.

        A trial has the schedule of all its epochs and rests at a rung; those that go on do so from
        their checkpoint.
        """
        while len(self.journal) < self.sweep.size:
            self.journal.ask()
        epochs = self.run.config.train.epochs
        alive = list(range(self.sweep.size))
        for until in self.sweep.halving.rungs(epochs):
            left = [number for number in alive if number not in self.journal.at_rung(until)]
            tasks = (self.task(number, self.config(self.journal.settings(number)), until) for number in left)
            place.carry_out(tasks, partial(self._tell_rung, until, len(alive)), show)
            there = self.journal.at_rung(until)
            ranked = sorted(alive, key=lambda number: (-self.metric.sign * there[number], number))
            keep = len(alive) if until == epochs else max(1, len(alive) // self.sweep.halving.factor)
            alive = sorted(number for number in ranked[:keep] if math.isfinite(there[number]))
            for number in self.journal.running:
                if number not in alive:
                    self.journal.tell(number, None)
        for number in self.journal.running:
            self.journal.tell(number, there[number])

    def _tell_rung(self, until: int, size: int, task: Task, outcome: RunRecord | TrainingDiverged) -> None:
        number = int(task.folder.name)
        value = None if isinstance(outcome, TrainingDiverged) else self.value(number, task.config, until)
        self.journal.report(number, until, -self.metric.sign * math.inf if value is None else value)
        self._write()
        there = len(self.journal.at_rung(until))
        self._say(number, value, f"{there} of {size} at epoch {until} of {self.run.config.train.epochs}")

    def value(self, number: int, config: VariantConfig, until: int | None = None) -> float | None:
        """What the metric was on validation at the epoch chosen, of the first `until`; None where
        none was evaluated."""
        folder = RunFolder(self.task(number, config, 1).folder)
        logged = EpochMetrics.read_lines(folder.metrics)
        lines = [line for line in logged if until is None or line.epoch <= until]
        seen = best_epoch.best_epoch_metrics(self.selected_by(config), lines)
        return None if seen is None else self.metric.value(seen)

    def _hand_over(self, best: int) -> None:
        """Gives the best trial's checkpoint to the run's first seed, which then has only its
        predictions to make."""
        trial, run = (
            RunFolder(self.task(best, self.config({}), 1).folder),
            RunFolder(self.home / f"seed-{self.study.seeds[0]}"),
        )
        if run.record.exists():
            return
        with run.locked():
            for name in ("metrics.jsonl", "timings.jsonl", "checkpoint.pt"):
                content = (trial.path / name).read_bytes()
                write_atomically(run.path / name, partial(_write_bytes, content))

    def _say(self, number: int, value: float | None, done: str) -> None:
        best = self.journal.best
        ahead = (
            "" if best is None else f"; best so far trial {best}, {self._written(self.journal.value(best))}"
        )
        how = "diverged" if value is None else f"{self.metric.title} on validation {self._written(value)}"
        self.say(f"{self.run.name}: trial {number} ({done}): {how}{ahead}")

    def _written(self, value: float | None) -> str:
        if value is None:
            return "–"
        return f"{100 * value:.2f} %" if self.metric.is_share else f"{value:.4f}"

    def _write(self, *, ended: bool = False) -> SweepFile:
        """Writes sweep.json: what was asked, and every trial as it stands; once all have ended, the
        best and what matters."""
        for number in range(len(self.journal)):
            if number not in self.rows or self.rows[number].status == "running":
                self.rows[number] = self._row(number)
        rows = list(self.rows.values())
        table = SweepFile(
            format=1,
            run=self.run.name,
            method="listed" if self.sweep.settings is not None else self.sweep.method,
            metric=self.metric.name,
            size=self.sweep.size,
            asked=self.asked,
            arithmetic=self.compute,
            best=self.journal.best if ended else None,
            trials=rows,
            importance=importance_verdicts(
                [row.settings for row in rows], [self._standing(row) for row in rows]
            )
            if ended
            else None,
        )
        write_json(self.home / FILE, table.as_json())
        return table

    def _row(self, number: int) -> Trial:
        settings, status = self.journal.settings(number), self.journal.status(number)
        config = self.config(settings)
        folder = RunFolder(self.task(number, config, 1).folder)
        record = read_record(folder) if folder.record.exists() else RunRecord(status="")
        trained = record.training
        diverged = record.status == "diverged"
        value = None if diverged or trained.epochs is None else self.value(number, config)
        return Trial(
            number=number,
            settings=settings,
            status="diverged" if diverged and status == "left out" else status,
            epochs=trained.epochs,
            seconds=trained.seconds,
            value=self._estimate(value),
            reads_of_test=record.reads_of_test,
        )

    def _estimate(self, value: float | None) -> Estimate | None:
        """A trial's value with its interval over the validation images; of a loss without one."""
        if value is None or self.data.validation is None:
            return None
        images = len(self.data.validation)
        n = min(images, best_epoch.IMAGES) if self.metric.needs_robust_accuracy else images
        if not self.metric.is_share:
            return Estimate(value, math.nan, math.nan, n, "none")
        return wilson(round(value * n), n)

    def _standing(self, row: Trial) -> Standing:
        """Finished trials by their value; below them those left out, by how far they came; at the
        end those that diverged."""
        if row.value is None:
            return (-1.0, 0.0)
        reached = math.inf if row.status == "finished" else float(row.epochs or 0)
        return (reached, self.metric.sign * row.value.value)


def _write_bytes(content: bytes, file: IO[bytes]) -> None:
    file.write(content)
