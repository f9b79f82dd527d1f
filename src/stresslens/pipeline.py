"""The story of a study: settle → train → predict → compare → report. What is finished is not done again."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from stresslens import comparison, processes, robust_comparison, stages, transfers
from stresslens import study as studies
from stresslens.building import Task
from stresslens.core import distributed
from stresslens.core.errors import ConfigError, Stopped, StresslensError, TrainingDiverged
from stresslens.core.printing import notices_are_sentences
from stresslens.core.results import command_line, read_json, write_json
from stresslens.settling import settle
from stresslens.stages import Record
from stresslens.training import Show

Tell = Callable[[Task, Record], None]
"""Called when a run is finished, or found finished."""


SAVING_SECONDS = 60
"""How long a stopped study waits for its workers to save."""


def run(
    study: studies.Study,
    *,
    out: Path = Path("runs"),
    jobs: int = 1,
    show: Callable[[Task], Show] | None = None,
    tell: Tell = lambda task, record: None,
) -> Path:
    """Carries out a study and returns its folder, `out/<study>`, with report.html and comparison.json in it.

    Finished stages are skipped, interrupted ones go on. `jobs` runs are trained at a time, each in a process of its own with its
    share of the processor's cores. A run that diverges is recorded and reported, and the others go on, but for those that are to
    be attacked with its gradients; TrainingDiverged is raised at the end, and names them all. Raises Stopped after a signal, with
    everything saved. Under torchrun each training is shared by all processes; this is the first of them.
    """
    if jobs > 1 and distributed.group().place.world > 1:
        raise ConfigError(f"--jobs {jobs}: under torchrun all processes train the same run; drop --jobs, or start without torchrun")
    folder = out / study.name
    tasks = settle(tasks_of(study, folder), most_threads=max(1, (os.cpu_count() or 1) // jobs))
    processes.admit(tasks)
    _describe(study, folder)
    failed: dict[Path, str] = {}
    for wave in waves(tasks):
        orphans = {task.folder: other for task in wave if (other := _surrogate(task)) in failed}
        failed |= {where: f"left out, since its surrogate {other} has no model" for where, other in orphans.items()}
        ready = [task for task in wave if task.folder not in failed]
        failed |= _carry_out(ready, jobs, show or (lambda task: lambda position, epochs, done: None), tell)
    conclude(folder)
    if failed:
        raise TrainingDiverged("\n".join(f"{where}: {why}" for where, why in failed.items()))
    return folder


def tasks_of(study: studies.Study, folder: Path) -> list[Task]:
    """Every seed of every run, with the folder it goes to."""
    return [
        Task(study.name, run.name, seed, run.recipe, run.base, folder / run.name / f"seed-{seed}", repeats=study.repeats)
        for run in study.runs
        for seed in study.seeds
    ]


def waves(tasks: Sequence[Task]) -> list[list[Task]]:
    """The tasks in the order that their surrogates ask for: a run comes after the one whose gradients it is attacked with.

    Raises ConfigError where runs wait for each other.
    """
    surrogates = {task.run: task.recipe.robustness.surrogate if task.recipe.robustness else None for task in tasks}

    def depth(run: str, seen: tuple[str, ...] = ()) -> int:
        other = surrogates.get(run)
        if run in seen:
            raise ConfigError(f"robustness.surrogate: the runs {' → '.join((*seen, run))} wait for each other")
        return 0 if other is None or other not in surrogates else 1 + depth(other, (*seen, run))

    depths = {run: depth(run) for run in surrogates}
    return [[task for task in tasks if depths[task.run] == level] for level in sorted(set(depths.values()))]


def _surrogate(task: Task) -> Path | None:
    """The folder of the run whose gradients this one is attacked with."""
    asked = task.recipe.robustness
    return task.folder.parent.parent / asked.surrogate / task.folder.name if asked and asked.surrogate else None


def conclude(folder: Path) -> None:
    """Writes comparison.json and report.html from the files of the study's finished runs."""
    from stresslens.report.page import write_report

    file = folder / "transfers.json"
    passed_on = transfers.of_study(folder, trust=True, known=read_json(file) if file.exists() else None)
    if passed_on is not None:
        write_json(file, passed_on)
    robustness = robust_comparison.of_study(folder)
    write_json(folder / "comparison.json", comparison.of_study(folder) | {"robustness": robustness})
    write_report(folder, anew=False)


def _describe(study: studies.Study, folder: Path) -> None:
    """Writes study.json. What the folder holds besides (other seeds, other runs, their contrasts) stays part of the study."""
    file, head = folder / "study.json", ""
    kept = read_json(file) if file.exists() else {"runs": [], "seeds": [], "contrasts": []}
    if study.source is not None:
        if file.exists() and folder.resolve() in study.source.resolve().parents:
            return  # a run of this study, by its own config.yaml
        comments = itertools.takewhile(lambda line: line.startswith("#"), study.source.read_text(encoding="utf-8").splitlines())
        head = "\n".join(line.removeprefix("#").removeprefix(" ") for line in comments)
    names = [run.name for run in study.runs]
    described = {
        "format": 1,
        "name": study.name,
        "runs": [*names, *(run for run in kept["runs"] if run not in names)],
        "seeds": sorted({*kept["seeds"], *study.seeds}),
        "contrasts": [*study.contrasts, *(c for c in kept["contrasts"] if not {c[1], c[2]} <= set(names))],
        "claims": study.claims,
        "curves": [{"name": name, "runs": runs} for name, runs in study.curves],
        "command": command_line(),
        "source": str(study.source) if study.source is not None else None,
        "head": head,
    }
    write_json(file, described)


def _start_worker() -> None:
    """In a worker: it ends when the process that started it is gone, even by kill -9, so that the run's folder is free again.

    Ctrl-C reaches it too; only training listens, and saves.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    notices_are_sentences()
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _carry_out_in_worker(task: Task) -> Record:
    """In a worker: a run that was stopped has been saved, and the worker ends with it instead of taking up the next."""
    try:
        return stages.carry_out(task)
    except Stopped as stopped:
        os._exit(stopped.exit_code)


def _carry_out(tasks: list[Task], jobs: int, show: Callable[[Task], Show], tell: Tell) -> dict[Path, str]:
    """Runs every task and returns the folders of those that diverged, with the message of each."""
    diverged: dict[Path, str] = {}
    if jobs == 1 or len(tasks) <= 1:
        for task in tasks:
            try:
                tell(task, stages.carry_out(task, show(task)))
            except TrainingDiverged as error:
                diverged[task.folder] = str(error)
        return diverged
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), _start_worker) as pool:
        try:
            waiting = {pool.submit(_carry_out_in_worker, task): task for task in tasks}
            for done in as_completed(waiting):
                task = waiting[done]
                try:
                    tell(task, done.result())
                except TrainingDiverged as error:
                    diverged[task.folder] = str(error)
        except BrokenProcessPool as error:
            raise StresslensError("a process was ended from outside (out of memory?); the same command goes on") from error
        except BaseException:  # a worker's error, or a signal to this process: the workers save and end
            pool.shutdown(wait=False, cancel_futures=True)
            workers = multiprocessing.active_children()
            for worker in workers:
                if worker.pid is not None:
                    os.kill(worker.pid, signal.SIGTERM)
            for worker in workers:  # they save first, and end with this process at the latest
                worker.join(SAVING_SECONDS)
            raise
    return diverged
