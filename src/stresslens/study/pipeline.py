"""The pipeline of a study: sweep → autotune → train → predict → compare → report.

Finished stages are not repeated.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stresslens.comparison import (
    ablation,
    accuracy,
    claims,
    convergence,
    other_metrics,
    robustness,
    setting_importance,
    transferability,
)
from stresslens.config import study_file, study_record
from stresslens.config.ensembles import variant_seeds
from stresslens.config.validation import depends_on
from stresslens.config.yaml_source import head_of
from stresslens.core import distributed
from stresslens.core.devices import Precision
from stresslens.core.errors import ConfigError, Notice
from stresslens.core.files import UnreadableRun, read_json, write_json
from stresslens.core.run_folder import RunFolder, command_line
from stresslens.evaluation.record import Failure, RunRecord
from stresslens.study import executors, sweep
from stresslens.study.failures import error_of, failure_of
from stresslens.study.longer_runs import go_on
from stresslens.study.preconditions import check_ablation, check_tasks
from stresslens.study.record import record_left_out
from stresslens.study.run_groups import in_groups
from stresslens.study.run_tasks import tasks_of, with_kept_names
from stresslens.training.autotune import adopt_from_folder, autotune, precision_of
from stresslens.training.distributed import admit
from stresslens.training.loop import Show
from stresslens.training.task import Task

Tell = Callable[[Task, RunRecord], None]
"""Called when a run has ended, also where it was finished before."""


@dataclass(frozen=True)
class CarriedStudy:
    """A study that was carried out: its folder, and the parts that failed, by their run's folder and
    their stage."""

    folder: Path
    failures: dict[str, Failure]

    def raise_failed(self) -> None:
        """Raises the error of the parts that failed, with a line for each."""
        if self.failures:
            raise error_of(self.failures)


def run(
    study: study_file.Study,
    *,
    out: Path = Path("runs"),
    jobs: int | None = None,
    show: Callable[[Task], Show] = lambda task: lambda position, epochs, done: None,
    tell: Tell = lambda task, record: None,
    say: Callable[[str], None] = lambda line: None,
    trackers: tuple[Any, ...] = (),
) -> Path:
    """Carries out a study and returns its folder, `out/<study>`, with report.html and
    comparison.json in it.

    Finished stages are skipped, interrupted ones resume. A sweep comes first: `say` gets a line for
    each trial, and each variant is then trained with its best settings on the validation split.
    `jobs` runs are trained at a time, each in its own process with an equal part of the processor's
    cores. `trackers` are the caller's own; they belong to no configuration. What can be refused is
    refused before anything is trained. A stage that fails later is recorded and reported, and
    everything else that does not need it is done; at the end an error names all that failed, of
    their kind (TrainingDiverged, DataError, …) where all have the same. Raises Stopped after a
    signal, with everything saved. Under torchrun all processes share each training; this function
    runs in the first of them.
    """
    carried = carry_out_study(study, out=out, jobs=jobs, show=show, tell=tell, say=say, trackers=trackers)
    carried.raise_failed()
    return carried.folder


def carry_out_study(
    study: study_file.Study,
    *,
    out: Path,
    jobs: int | None,
    show: Callable[[Task], Show],
    tell: Tell,
    say: Callable[[str], None],
    trackers: tuple[Any, ...] = (),
) -> CarriedStudy:
    """As `run`, but returns what failed instead of raising it."""
    if distributed.group().place.world > 1 and ((jobs or 1) > 1 or study.executor != "local"):
        option = f"--jobs {jobs}" if study.executor == "local" else f"the executor {study.executor}"
        raise ConfigError(
            f"{option}: under torchrun all processes train the same run; "
            "leave that out, or start without torchrun"
        )
    folder = out / study.name
    study = with_kept_names(study, folder)
    failures: dict[str, Failure] = {}
    without_model: dict[Path, Failure] = {}

    def on_finished(task: Task, record: RunRecord) -> None:
        for stage, why in record.failures.items():
            failures[str(task.folder) if stage == "training" else f"{task.folder}: {stage}"] = why
        if record.failures and not record.usable:
            without_model[task.folder] = next(iter(record.failures.values()))
        tell(task, record)

    def leave_out(task: Task, failure: Failure) -> None:
        on_finished(task, record_left_out(task, failure))

    with executors.open_executor(study.executor, jobs) as executor:
        unsettled: dict[str, Failure] = {}
        if study.sweep is not None:
            study, unsettled = sweep.swept(study, folder, executor, show, say)
        tasks = [replace(task, trackers=trackers) for task in tasks_of(study, folder)]
        for line in go_on(tasks):
            say(line)
        adopt_from_folder(tasks)
        executor.expect(sum(not RunFolder(task.folder).begun for task in tasks))
        settled = [task for task in tasks if task.run not in unsettled]
        missing = check_tasks(settled, study.places, folder) if settled else {}
        check_ablation(study.ablation, settled)
        _describe(study, folder)
        precision = None
        for ready in waves(tasks):
            due = []
            for task in ready:
                why = unsettled.get(task.run) or missing.get(task.folder) or _left_out(task, without_model)
                leave_out(task, why) if why is not None else due.append(task)
            wave, failed = _autotuned(due, executor.threads, precision)
            for task, why in failed:
                leave_out(task, why)
            precision = precision or precision_of(due, wave)
            admit(wave)
            executor.carry_out(in_groups(wave, executor.at_once), on_finished, show)
    conclude(folder)
    return CarriedStudy(folder, failures)


def _left_out(task: Task, without_model: Mapping[Path, Failure]) -> Failure | None:
    """Why a task cannot be carried out: a run that it needs has no model. None if none is missing."""
    for other, what in _needed(task).items():
        if other in without_model:
            why = f"left out, since its {what} {other} has no model"
            return Failure(message=why, exit_code=without_model[other].exit_code)
    return None


def _autotuned(
    tasks: list[Task], most_threads: int, precision: Precision | None
) -> tuple[list[Task], list[tuple[Task, Failure]]]:
    """The tasks that can be autotuned, and the others with the reason."""
    failed: list[tuple[Task, Failure]] = []
    try:
        return autotune(tasks, most_threads=most_threads, precision=precision), failed
    except Exception:
        sound = []
        for task in tasks:
            try:
                autotune([task], most_threads=most_threads, precision=precision)
                sound.append(task)
            except Exception as error:
                failed.append((task, failure_of(error, task.folder, "training")))
        return autotune(sound, most_threads=most_threads, precision=precision), failed


def waves(tasks: Sequence[Task]) -> list[list[Task]]:
    """The tasks in groups by their dependencies: a run comes after the runs whose weights, gradients
    or answers it needs.

    Raises ConfigError where runs depend on each other in a cycle.
    """
    needs = {task.run: [name for _, name in depends_on(task.config)] for task in tasks}

    def depth(run: str, seen: tuple[str, ...] = ()) -> int:
        if run in seen:
            raise ConfigError(
                f"the runs {' → '.join((*seen, run))} depend on each other's weights, answers or gradients"
            )
        return max((1 + depth(other, (*seen, run)) for other in needs[run] if other in needs), default=0)

    depths = {run: depth(run) for run in needs}
    return [[task for task in tasks if depths[task.run] == level] for level in sorted(set(depths.values()))]


def _needed(task: Task) -> dict[Path, str]:
    """The folders of the runs that this one needs, and what each provides: weights or surrogate."""
    return {
        task.folder.parent.parent / name / task.folder.name: what for what, name in depends_on(task.config)
    }


def conclude(folder: Path) -> None:
    """Compares the study's finished runs by their files, and writes comparison.json and
    report.html."""
    from stresslens.report.page import write_report

    file = folder / "transfers.json"
    transfer = transferability.study_transferability(
        folder, trust=True, known=read_json(file) if file.exists() else None
    )
    if transfer is not None:
        write_json(file, transfer.as_json())
    compared = accuracy.compare_study_accuracy(folder)
    compared.robustness = robustness.compare_study_robustness(folder)
    compared.by_metric = other_metrics.compare_study_by_metrics(folder, compared)
    compared.ablation = ablation.study_ablation(folder, compared)
    compared.claims = claims.study_claims(folder, compared)
    compared.importance = setting_importance.study_setting_importance(folder)
    compared.pace = convergence.study_convergence(folder)
    write_json(folder / "comparison.json", compared.as_json())
    write_report(folder, anew=False)


def _kept_description(file: Path) -> study_record.StudyRecord | None:
    """The study.json of an earlier command; None where there is none, or it is damaged."""
    if not file.exists():
        return None
    try:
        return study_record.read_study_record(file.parent)
    except UnreadableRun:
        why = f"{file} is damaged; it is written anew, and lists only the runs of this command"
        warnings.warn(Notice(why), stacklevel=2)
        return None


def _describe(study: study_file.Study, folder: Path) -> None:
    """Writes study.json. Other seeds, other variants and their contrasts that the folder already
    holds stay part of the study."""
    file, head = folder / study_record.FILE, ""
    kept = _kept_description(file)
    if study.source is not None:
        if kept is not None and folder.resolve() in study.source.resolve().parents:
            return  # a run of this study, by its own config.yaml
        head = "\n".join(head_of(study.source))
    kept = kept or study_record.StudyRecord()
    names = [variant.name for variant in study.variants]
    runs = [*names, *(run for run in kept.runs if run not in names)]
    own = {each.name: variant_seeds(each.config, study.seeds) for each in study.variants}
    seeds = {run: sorted({*kept.seeds_of(run), *own.get(run, ())}) for run in runs}
    every_seed = sorted({*kept.seeds, *study.seeds})
    described = study_record.StudyRecord(
        format=1,
        name=study.name,
        runs=runs,
        own_names={**kept.own_names, **study.own_names},
        overrides={**kept.overrides, **study.overrides},
        seeds=every_seed,
        own_seeds={run: these for run, these in seeds.items() if these != every_seed},
        contrasts=[*study.contrasts, *(c for c in kept.contrasts if not {c[1], c[2]} <= set(names))],
        margins={**kept.margins, **study.margins},
        metrics=study.metrics,
        ablation=study.ablation,
        claims=study.claims,
        curves=[study_record.SizeCurve(name=name, runs=runs) for name, runs in study.curves],
        command=command_line(),
        source=str(study.source) if study.source is not None else None,
        head=head,
    )
    write_json(file, described.as_json())
