"""Hyperparameter search (`sweep:`): carries out the trials of each variant and selects the best
settings.

Trials run like other runs, but without the test split. One process asks the journal for settings
and records the results.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from stresslens.comparison.setting_importance import Standing, importance_verdicts
from stresslens.comparison.sweep_file import SweepFile, Trial
from stresslens.config import study_file
from stresslens.config.old_words import in_words_of_0_1
from stresslens.config.own_plugins import source_digests
from stresslens.config.schema import EVALUATION_KEYS, LATER_COMPUTE_KEYS, RESUME_SAFE_KEYS, VariantConfig
from stresslens.config.search_space import space_settings
from stresslens.config.selection_rules import RULES, SelectionRule
from stresslens.config.sweep_validation import recipe_with
from stresslens.core.data import Data
from stresslens.core.errors import ConfigError, Problem, Problems
from stresslens.core.files import write_bytes, write_json
from stresslens.core.run_folder import RunFolder
from stresslens.evaluation.record import Failure, RunRecord, read_record
from stresslens.study.executors import Executor
from stresslens.study.sweep_choices import check_all, check_any, choices_of, first_able, in_words, place_for
from stresslens.study.sweep_folder import (
    FILE,
    adopted_compute,
    all_failed,
    check_same_sweep,
    joint_failure,
    known_sweep,
    make_way,
    trials_left,
)
from stresslens.study.sweep_journal import SweepJournal, has_journal
from stresslens.study.sweep_metric import check_metric, estimate_on
from stresslens.training import best_epoch
from stresslens.training.autotune import autotune, compute_config
from stresslens.training.epoch_log import EpochMetrics
from stresslens.training.loop import Show
from stresslens.training.members import member_digest
from stresslens.training.task import Task, load_data


def swept(
    study: study_file.Study,
    folder: Path,
    executor: Executor,
    show: Callable[[Task], Show],
    say: Callable[[str], None],
) -> tuple[study_file.Study, dict[str, Failure]]:
    """Carries out the trials of each variant. Returns the study with the best settings of each on the
    validation split, and why variants have none: all their trials failed. `say` gets a line about
    each trial.

    The first seed of the variant takes over the training of the best trial, so that it is not done
    twice. Raises ConfigError, before any training and for all variants at once, where trials cannot be
    compared, none of them can be trained, or the folder holds another sweep.
    """
    searches = [Trials(study, variant, folder / variant.name, say) for variant in study.variants]
    executor.expect(sum(trials_left(search.known, search.sweep.size) for search in searches))
    check_all({place_for(study, search.run.name): search.check for search in searches}, folder)
    best = {search.run.name: search.best(executor, show) for search in searches}
    failures = {name: found for name, found in best.items() if isinstance(found, Failure)}
    variants = [found if not isinstance(found := best[run.name], Failure) else run for run in study.variants]
    return replace(study, variants=variants), failures


class Trials:
    """The trials of one variant: their folders (trials/000, …), their journal, and the table of
    them in sweep.json."""

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
        """The compute settings (`ComputeConfig.settings`), autotuned once for all trials."""
        self.rows: dict[int, Trial] = {}
        """The rows of sweep.json. The row of a trial that has ended does not change."""

    def check(self) -> None:
        """Raises ConfigError unless one metric can compare all trials, one of them can be trained, and
        the folder holds this sweep or none."""
        if self.data.validation is None:
            raise ConfigError(
                "sweep: trials are compared on the validation split, which "
                f"{self.data.name} does not have here; set `validation:`"
            )
        configs = [task.config for task in self.choices.values()]
        rules = {self.selected_by(config) for config in configs}
        check_metric(self.sweep.metric, self.metric, rules, configs)
        if self.known is not None:
            check_same_sweep(self.home, self.known.asked, self.identity)
        elif not has_journal(self.home / "trials"):
            check_any(self.choices, self.home)

    @cached_property
    def choices(self) -> dict[str, Task]:
        """The variant with each of `choices_of` alone, by that choice in words."""
        configs = {words: self.config(each) for words, each in choices_of(self.study, self.settings).items()}
        return {words: self.task(0, config, config.train.epochs) for words, config in configs.items()}

    @cached_property
    def data(self) -> Data:
        return load_data(self.task(0, self.config({}), 1))

    def selected_by(self, config: VariantConfig) -> SelectionRule | None:
        """The rule that selects the best epoch of a trial; None where the last epoch is used."""
        return RULES.get(best_epoch.selection_rules(config.train, self.data, base=self.run.base)[0])

    @cached_property
    def metric(self) -> SelectionRule:
        """The rule that compares trials. `auto` is the rule that selects the epoch, or accuracy
        where the last epoch is used."""
        if self.sweep.metric != "auto":
            return RULES[self.sweep.metric]
        first = self.config(self.sweep.settings[0] if self.sweep.settings else {})
        return self.selected_by(first) or RULES["accuracy"]

    @cached_property
    def identity(self) -> dict[str, Any]:
        """The identity of this sweep: its search space, configuration, seed, data, initial weights and
        teacher."""
        code = source_digests([self.values, self.sweep.space, self.sweep.settings], base=self.run.base)
        train = {key: value for key, value in self.values["train"].items() if key not in RESUME_SAFE_KEYS}
        config = {**self.values, "train": train, "code": code}
        plan = self.task(0, self.config({}), 1).plan
        origin = plan.initial_weights
        weights = {"weights": origin.digest} if origin and origin.digest else {}
        teacher = {"teacher": member_digest(plan.teacher)} if plan.teacher else {}
        return {
            "sweep": in_words_of_0_1({"sweep": asdict(self.sweep)})["sweep"],
            "recipe": in_words_of_0_1(config),
            "seed": self.study.seeds[0],
            "data": self.data.fingerprint,
            **weights,
            **teacher,
        }

    @cached_property
    def known(self) -> SweepFile | None:
        """sweep.json as an earlier attempt left it."""
        return known_sweep(self.home)

    def config(self, settings: dict[str, Any]) -> VariantConfig:
        """The configuration of a trial with these settings. Raises Problems."""
        problems: list[Problem] = []
        config = recipe_with(self.values, settings, {}, self.run.base, problems)
        if config is None:
            raise Problems(problems)
        off = dict.fromkeys(LATER_COMPUTE_KEYS, False) if self.compute else {}
        return replace(config, train=replace(config.train, **off | self.compute))

    def task(self, number: int, config: VariantConfig, until: int) -> Task:
        """A trial as a task that pauses after the epoch `until`."""
        folder, name = self.home / "trials" / f"{number:03d}", f"{self.run.name}-trial-{number:03d}"
        return Task(self.study.name, name, self.study.seeds[0], config, self.run.base, folder, until=until)

    def best(self, executor: Executor, show: Callable[[Task], Show]) -> study_file.Variant | Failure:
        """Carries out the trials that are left, and returns the variant with the best settings, or why
        there is none: every trial failed."""
        with RunFolder(self.home / "trials").locked():
            self.journal = self._opened_journal()
            if all_failed(self.journal):
                self.journal.set_aside()
                self.journal = self._opened_journal()
                self.say(f"{self.run.name}: every trial failed before; they are tried again")
            if self.known is not None:
                self.compute = self.known.arithmetic
                self._say_another_size(self.known.size)
            elif len(self.journal):
                self.compute = adopted_compute(
                    self.home, self.journal, self._full_task, self.data.fingerprint
                )
                self.say(f"{self.run.name}: {FILE} was missing; {len(self.journal)} trials are there")
            self.compute = self.compute or self._autotuned(executor)
            self._write()
            if self.sweep.method == "halving":
                self._halve(executor, show)
            else:
                executor.carry_out(self._due_tasks(), self._on_finished, show)
            best = self.journal.best
            if best is None:
                self._write(ended=True)
                return joint_failure(self.journal)
            written = self._write(ended=True)
            for line in written.importance.said if written.importance else ():
                self.say(f"{self.run.name}: {line}")
            settings = self.journal.settings(best)
            chosen, config = in_words(settings), self.config(settings)
            which = written.tie or ", the best"
            self.say(f"{self.run.name}: continues with trial {best}{which} on validation: {chosen}")
            watch = self.run.config.train.watch
            evaluation = {key: getattr(self.run.config, key) for key in EVALUATION_KEYS}
            self._make_way(replace(config, train=replace(config.train, watch=watch)))
            if config.train.watch == watch:
                self._hand_over(best)
        return replace(
            self.run, config=replace(config, train=replace(config.train, watch=watch), **evaluation)
        )

    def _opened_journal(self) -> SweepJournal:
        folder, largest = self.home / "trials", self.metric.higher_is_better
        return SweepJournal(folder, self.sweep, self.values, self.run.base, largest=largest)

    def _say_another_size(self, before: int) -> None:
        name, size, there = self.run.name, self.sweep.size, min(before, len(self.journal))
        if size > before:
            self.say(f"{name}: goes on with the {there} trials that are there, to {size}")
        elif size < before:
            self.say(f"{name}: {before} trials were asked for before; the first {size} count")

    def _make_way(self, config: VariantConfig) -> None:
        """Sets the runs of the settings aside that were the best of fewer trials."""
        varied = {setting.key for setting in self.settings}
        varied |= {key for settings in self.sweep.settings or () for key in settings}
        before = f"best-of-{self.known.size}" if self.known else "best-before"
        for seed in self.study.seeds:
            folder = self.home / f"seed-{seed}"
            task = Task(self.study.name, self.run.name, seed, config, self.run.base, folder)
            if (place := make_way(task, varied, before)) is not None:
                self.say(f"{self.run.name}: another trial is the best now; {folder} is kept as {place}")

    def _autotuned(self, executor: Executor) -> dict[str, Any]:
        """The compute settings for all trials: device, precision, threads and memory format."""
        config = self.config({})
        tasks = [self.task(0, config, config.train.epochs), *self.choices.values()]
        task = replace(first_able(tasks, self.home), folder=self.home / "trials")
        return compute_config(autotune([task], most_threads=executor.threads)[0]).settings()

    def _due_tasks(self) -> Iterator[Task]:
        """The interrupted trials with their old numbers, then new trials, each taken from the
        journal when a worker is free."""
        for number in self.journal.running:
            yield self._full_task(number)
        while len(self.journal) < self.sweep.size:
            yield self._full_task(self.journal.ask())

    def _full_task(self, number: int) -> Task:
        """A trial as a task of all its epochs."""
        config = self.config(self.journal.settings(number))
        return self.task(number, config, config.train.epochs)

    def _on_finished(self, task: Task, record: RunRecord) -> None:
        """Records the result of a trial that has ended."""
        number = int(task.folder.name)
        value = self._result(number, task.config, record)
        self.journal.tell(number, value)
        self._write()
        self._say(number, value, f"{self.journal.ended} of {self.sweep.size} ended")

    def _result(
        self, number: int, config: VariantConfig, record: RunRecord, until: int | None = None
    ) -> float | None:
        """The value of a trial, or None where it failed; the journal then holds the reason."""
        for failure in record.failures.values():
            self.journal.note(number, failure)
        return None if record.failures else self.value(number, config, until)

    def _halve(self, executor: Executor, show: Callable[[Task], Show]) -> None:
        """Successive halving (Jamieson & Talwalkar 2016). A rung starts when the one below it is
        complete.

        The learning-rate schedule of a trial covers all its epochs. A trial pauses at a rung, and
        the best ones resume from their checkpoints.
        """
        while len(self.journal) < self.sweep.size:
            self.journal.ask()
        epochs = self.run.config.train.epochs
        alive = list(range(self.sweep.size))
        for until in self.sweep.halving.rungs(epochs):
            left = [number for number in alive if number not in self.journal.at_rung(until)]
            tasks = (self.task(number, self.config(self.journal.settings(number)), until) for number in left)
            executor.carry_out(tasks, partial(self._on_rung_finished, until, len(alive)), show)
            values = self.journal.at_rung(until)
            ranked = sorted(alive, key=lambda number: (-self.metric.sign * values[number], number))
            keep = len(alive) if until == epochs else max(1, len(alive) // self.sweep.halving.factor)
            alive = sorted(number for number in ranked[:keep] if math.isfinite(values[number]))
            for number in self.journal.running:
                if number not in alive:
                    self.journal.tell(number, None)
        for number in self.journal.running:
            self.journal.tell(number, values[number])

    def _on_rung_finished(self, until: int, size: int, task: Task, record: RunRecord) -> None:
        """Records the result of a trial at the rung `until`; `size` is the number of trials
        there."""
        number = int(task.folder.name)
        value = self._result(number, task.config, record, until)
        self.journal.report(number, until, value)
        self._write()
        arrived = len(self.journal.at_rung(until))
        self._say(number, value, f"{arrived} of {size} at epoch {until} of {self.run.config.train.epochs}")

    def value(self, number: int, config: VariantConfig, until: int | None = None) -> float | None:
        """The metric on validation at the best of the first `until` epochs; None where no epoch was
        evaluated."""
        folder = RunFolder(self.task(number, config, 1).folder)
        logged = EpochMetrics.read_lines(folder.metrics)
        lines = [line for line in logged if until is None or line.epoch <= until]
        metrics = best_epoch.best_epoch_metrics(self.selected_by(config), lines)
        return None if metrics is None else self.metric.value(metrics)

    def _hand_over(self, best: int) -> None:
        """Copies the best trial's checkpoint and logs to the run of the first seed, which then only
        makes its predictions."""
        trial = RunFolder(self.task(best, self.config({}), 1).folder)
        run = RunFolder(self.home / f"seed-{self.study.seeds[0]}")
        if run.record.exists() and read_record(run).status != "left out":
            return
        with run.locked():
            for name in ("metrics.jsonl", "timings.jsonl", "checkpoint.pt"):
                content = (trial.path / name).read_bytes()
                write_bytes(run.path / name, content)

    def _say(self, number: int, value: float | None, done: str) -> None:
        best = self.journal.best
        leader = "" if best is None else f"; best so far trial {best}, {self._text(self.journal.value(best))}"
        result = f"{self.metric.title} on validation {self._text(value)}"
        if value is None:
            failure = self.journal.failure(number)
            result = f"failed: {failure.message}" if failure and not failure.is_divergence else "diverged"
        self.say(f"{self.run.name}: trial {number} ({done}): {result}{leader}")

    def _text(self, value: float | None) -> str:
        if value is None:
            return "–"
        return f"{100 * value:.2f} %" if self.metric.is_share else f"{value:.4f}"

    def _write(self, *, ended: bool = False) -> SweepFile:
        """Writes sweep.json: the identity of the sweep and the state of every trial; once all have
        ended, also the best trial and the importance of the settings."""
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
            asked=self.identity,
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
        failure = self.journal.failure(number)
        if status == "left out" and record.status == "diverged":
            status = "diverged"
        failed = failure is not None or record.status == "diverged" or trained.epochs is None
        value = None if failed else self.value(number, config)
        return Trial(
            number=number,
            settings=settings,
            status=status,
            reason=failure.message if failure and status == "failed" else "",
            epochs=trained.epochs,
            seconds=trained.seconds,
            value=estimate_on(self.data.validation, value, self.metric),
            reads_of_test=record.reads_of_test,
        )

    def _standing(self, row: Trial) -> Standing:
        """The rank of a trial: finished trials by their value, below them those that halving left
        out, by their epochs, and last those that failed."""
        if row.value is None:
            return (-1.0, 0.0)
        reached = math.inf if row.status == "finished" else float(row.epochs or 0)
        return (reached, self.metric.sign * row.value.value)
