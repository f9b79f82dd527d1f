"""The story of a study: try → settle → train → predict → compare → report. What is finished is not
done again."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

from stresslens.comparison import accuracy, convergence, robustness, setting_importance, transferability
from stresslens.config import study_file, study_record
from stresslens.config.validation import depends_on
from stresslens.core import distributed
from stresslens.core.errors import ConfigError, TrainingDiverged
from stresslens.core.files import read_json, write_json
from stresslens.core.run_folder import command_line
from stresslens.evaluation.record import RunRecord
from stresslens.study import executors, sweep
from stresslens.training.autotune import adopt_from_folder, autotune, precision_of
from stresslens.training.distributed import admit
from stresslens.training.loop import Show
from stresslens.training.task import Task

Tell = Callable[[Task, RunRecord], None]
"""Called when a run is finished, or found finished."""


def run(
    study: study_file.Study,
    *,
    out: Path = Path("runs"),
    jobs: int | None = None,
    show: Callable[[Task], Show] = lambda task: lambda position, epochs, done: None,
    tell: Tell = lambda task, record: None,
    say: Callable[[str], None] = lambda line: None,
) -> Path:
    """Carries out a study and returns its folder, `out/<study>`, with report.html and comparison.json in it.

    Finished stages are skipped, interrupted ones go on. A sweep comes first, and tells each trial
    to `say`; the best settings by validation are then what each run is trained with. `jobs` runs
    are trained at a time, each in a process of its own with its share of the processor's cores. A
    run that diverges is recorded and reported, and the others go on, but for those that are to be
    attacked with its gradients; TrainingDiverged is raised at the end, and names them all. Raises
    Stopped after a signal, with everything saved. Under torchrun each training is shared by all
    processes; this is the first of them.
    """
    if distributed.group().place.world > 1 and ((jobs or 1) > 1 or study.executor != "local"):
        asked = f"--jobs {jobs}" if study.executor == "local" else f"the executor {study.executor}"
        raise ConfigError(
            f"{asked}: under torchrun all processes train the same run; leave that out, or start without torchrun"
        )
    folder = out / study.name
    failed: dict[Path, str] = {}

    def told(task: Task, outcome: RunRecord | TrainingDiverged) -> None:
        if isinstance(outcome, TrainingDiverged):
            failed[task.folder] = str(outcome)
        else:
            tell(task, outcome)

    with executors.open_executor(study.executor, jobs) as place:
        if study.sweep is not None:
            study = sweep.swept(study, folder, place, show, say)
        tasks = tasks_of(study, folder)
        adopt_from_folder(tasks)
        precision = None
        for ready in waves(tasks):
            failed |= {
                task.folder: f"left out, since its {what} {other} has no model"
                for task in ready
                for other, what in _needed(task).items()
                if other in failed
            }
            due = [task for task in ready if task.folder not in failed]
            wave = autotune(due, most_threads=place.threads, precision=precision)
            precision = precision or precision_of(due, wave)
            admit(wave)
            _describe(study, folder)
            place.carry_out(wave, told, show)
    conclude(folder)
    if failed:
        raise TrainingDiverged("\n".join(f"{where}: {why}" for where, why in failed.items()))
    return folder


def tasks_of(study: study_file.Study, folder: Path) -> list[Task]:
    """Every seed of every run, with the folder it goes to."""
    return [
        Task(
            study.name,
            run.name,
            seed,
            run.config,
            run.base,
            folder / run.name / f"seed-{seed}",
            repeats=study.repeats,
        )
        for run in study.runs
        for seed in study.seeds
    ]


def waves(tasks: Sequence[Task]) -> list[list[Task]]:
    """The tasks in an order in which a run comes after those whose weights or gradients it needs.

    Raises ConfigError where runs wait for each other.
    """
    needs = {task.run: [name for _, name in depends_on(task.config)] for task in tasks}

    def depth(run: str, seen: tuple[str, ...] = ()) -> int:
        if run in seen:
            raise ConfigError(
                f"the runs {' → '.join((*seen, run))} wait for each other's weights or gradients"
            )
        return max((1 + depth(other, (*seen, run)) for other in needs[run] if other in needs), default=0)

    depths = {run: depth(run) for run in needs}
    return [[task for task in tasks if depths[task.run] == level] for level in sorted(set(depths.values()))]


def _needed(task: Task) -> dict[Path, str]:
    """The folders of the runs that this one needs, with what for."""
    return {
        task.folder.parent.parent / name / task.folder.name: what for what, name in depends_on(task.config)
    }


def conclude(folder: Path) -> None:
    """Writes comparison.json and report.html from the files of the study's finished runs."""
    from stresslens.report.page import write_report

    file = folder / "transfers.json"
    passed_on = transferability.study_transferability(
        folder, trust=True, known=read_json(file) if file.exists() else None
    )
    if passed_on is not None:
        write_json(file, passed_on.as_json())
    compared = accuracy.compare_study_accuracy(folder)
    compared.robustness = robustness.compare_study_robustness(folder)
    compared.importance = setting_importance.study_setting_importance(folder)
    compared.pace = convergence.study_convergence(folder)
    write_json(folder / "comparison.json", compared.as_json())
    write_report(folder, anew=False)


def _describe(study: study_file.Study, folder: Path) -> None:
    """Writes study.json. What the folder holds besides (other seeds, other runs, their contrasts)
    stays part of the study."""
    file, head = folder / study_record.FILE, ""
    kept = study_record.read_study_record(folder) if file.exists() else study_record.StudyRecord()
    if study.source is not None:
        if file.exists() and folder.resolve() in study.source.resolve().parents:
            return  # a run of this study, by its own config.yaml
        comments = itertools.takewhile(
            lambda line: line.startswith("#"), study.source.read_text(encoding="utf-8").splitlines()
        )
        head = "\n".join(line.removeprefix("#").removeprefix(" ") for line in comments)
    names = [run.name for run in study.runs]
    described = study_record.StudyRecord(
        format=1,
        name=study.name,
        runs=[*names, *(run for run in kept.runs if run not in names)],
        seeds=sorted({*kept.seeds, *study.seeds}),
        contrasts=[*study.contrasts, *(c for c in kept.contrasts if not {c[1], c[2]} <= set(names))],
        claims=study.claims,
        curves=[study_record.SizeCurve(name=name, runs=runs) for name, runs in study.curves],
        command=command_line(),
        source=str(study.source) if study.source is not None else None,
        head=head,
    )
    write_json(file, described.as_json())
