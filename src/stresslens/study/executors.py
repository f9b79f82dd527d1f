"""Executors: carry out runs in this process, in a pool of worker processes, or on a Ray cluster."""

from __future__ import annotations

import itertools
import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stresslens.config.study_keys import ExecutorName
from stresslens.core.errors import ConfigError, Stopped, StresslensError
from stresslens.core.extras import extra
from stresslens.core.notices import notices_are_sentences
from stresslens.evaluation.record import RunRecord
from stresslens.study.run_groups import Group, carry_out_together
from stresslens.study.worker_server import worker_context
from stresslens.training.autotune import compute_config
from stresslens.training.loop import Show
from stresslens.training.task import Task

Outcome = RunRecord | StresslensError
OnFinished = Callable[[Task, RunRecord], None]
"""Called in this process when a task has ended, before the next one starts."""

SAVING_SECONDS = 60
"""The seconds that a stopped study waits for its workers to save."""
RETRIES = 10
"""How many times Ray restarts a run whose worker was killed."""


@dataclass(frozen=True)
class Executor:
    """Carries out tasks, `at_once` of them at a time, each with at most `threads` threads. `submit`
    sends a group of tasks to another process."""

    at_once: int
    threads: int
    submit: Callable[[Group], Future[list[Outcome]]]
    always_submits: bool = False
    """Whether even a single task goes to another process."""
    start: Callable[[], object] = lambda: None
    """Starts the other processes; without it they start with the first tasks."""

    def expect(self, tasks: int) -> None:
        """Starts the other processes where so many tasks will need them: they import while this process
        checks the study and reads the data."""
        if min(tasks, self.at_once) > 1:
            self.start()

    def carry_out(
        self, tasks: Iterable[Task | Group], on_finished: OnFinished, show: Callable[[Task], Show]
    ) -> None:
        """Carries out every task. The next one, or group of tasks that train in one program, is taken
        from `tasks` when a worker is free. Only a task in this process shows its progress."""
        queue: Iterator[Group] = (task if isinstance(task, tuple) else (task,) for task in tasks)
        first = list(itertools.islice(queue, min(2, self.at_once)))
        queue = itertools.chain(first, queue)
        if len(first) < 2 and not self.always_submits:
            for group in queue:
                for task, outcome in zip(group, _outcomes(group, show)):
                    on_finished(task, _result(outcome))
            return
        waiting: dict[Future[list[Outcome]], Group] = {}
        while True:
            for group in itertools.islice(queue, self.at_once - len(waiting)):
                waiting[self.submit(group)] = group
            if not waiting:
                return
            done = wait(waiting, return_when=FIRST_COMPLETED).done
            for future in [future for future in waiting if future in done]:
                for task, outcome in zip(waiting.pop(future), future.result()):
                    on_finished(task, _result(outcome))


@contextmanager
def open_executor(executor: ExecutorName, jobs: int | None) -> Iterator[Executor]:
    """The executor of this name; it is closed at the end. After an error or a signal its workers
    save and end.

    Without `jobs` the runs are carried out one after another here, or one on each core of the
    cluster. Raises ConfigError where Ray is not installed or does not start.
    """
    with _on_ray(jobs) if executor == "ray" else _here(jobs or 1) as opened:
        yield opened


def _outcomes(
    group: Group, show: Callable[[Task], Show] = lambda task: lambda position, epochs, done: None
) -> Iterator[Outcome]:
    """The records of a group's tasks, up to the StresslensError of one that cannot begin: an error that
    is returned keeps its type and message between processes."""
    try:
        yield from carry_out_together(group, show)
    except StresslensError as error:
        yield error


def _result(outcome: Outcome) -> RunRecord:
    if isinstance(outcome, StresslensError):
        raise outcome
    return outcome


@contextmanager
def _here(jobs: int) -> Iterator[Executor]:
    threads = max(1, (os.cpu_count() or 1) // jobs)
    others = multiprocessing.active_children()
    with ProcessPoolExecutor(jobs, worker_context(), _start_worker, (dict(os.environ),)) as pool:

        def start() -> None:
            for _ in range(jobs):
                pool.submit(_nothing)

        try:
            yield Executor(jobs, threads, lambda group: pool.submit(_in_worker, group), start=start)
        except BrokenProcessPool as error:
            raise StresslensError(
                "a worker process was killed (out of memory?); the same command resumes"
            ) from error
        except BaseException:  # a worker's error, or a signal to this process: the workers save and end
            pool.shutdown(wait=False, cancel_futures=True)
            workers = [child for child in multiprocessing.active_children() if child not in others]
            for worker in workers:
                worker.terminate()
            for worker in workers:  # they save first; at the latest they end with this process
                worker.join(SAVING_SECONDS)
            raise


def _start_worker(environment: dict[str, str]) -> None:
    """Set-up of a worker, in the parent's environment: it ends when its parent process ends, even by
    kill -9, so that the run's folder is unlocked.

    Ctrl-C reaches the worker too. Only the training handles it, and saves.
    """
    os.environ.clear()
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    notices_are_sentences()
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _nothing() -> None:
    """A task for a worker that is to start."""


def _in_worker(group: Group) -> list[Outcome]:
    """Carries out a group of tasks in a worker. A stopped run has been saved, and the worker ends instead of
    starting the next one."""
    try:
        return [*_outcomes(group)]
    except Stopped as stopped:
        os._exit(stopped.exit_code)


@contextmanager
def _on_ray(jobs: int | None) -> Iterator[Executor]:
    """An executor on the Ray cluster of RAY_ADDRESS or `ray start`, or else on a new one of this
    machine alone. All nodes must be able to access the folder of the runs."""
    with extra("ray", "the executor ray"):
        import ray
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    started_here = not ray.is_initialized()
    if started_here:
        try:
            ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise ConfigError(f"Ray does not start: {error}") from error
    cores = max(1, int(ray.cluster_resources().get("CPU", 1)))
    at_once = jobs or cores
    working_folder = Path.cwd()
    running: list[Any] = []

    def submit(group: Group) -> Future[list[Outcome]]:
        compute = compute_config(group[0])
        needs = {
            "num_cpus": min(compute.threads, cores),
            "num_gpus": int(compute.device.startswith("cuda")),
            "max_retries": RETRIES,
        }
        absolute = tuple(
            replace(task, folder=task.folder.absolute(), base=task.base.absolute()) for task in group
        )
        running.append(ray.remote(_in_ray_worker).options(**needs).remote(absolute, working_folder))
        future: Future[list[Outcome]] = running[-1].future()
        return future

    try:
        yield Executor(
            at_once, max(1, min(os.cpu_count() or 1, cores // at_once)), submit, always_submits=True
        )
    except ray.exceptions.RayError as error:
        raise StresslensError(
            f"Ray could not finish a run ({type(error).__name__}: {error}); the same command resumes"
        ) from error
    except BaseException:  # the workers save and end
        for reference in running:
            ray.cancel(reference)
        ray.wait(running, num_returns=len(running), timeout=SAVING_SECONDS)
        raise
    finally:
        if started_here:
            ray.shutdown()


def _in_ray_worker(group: Group, working_folder: Path) -> list[Outcome]:
    """Carries out a task in a Ray worker. When a worker is killed or stopped, another one
    resumes its run from the last checkpoint."""
    os.chdir(working_folder)
    return _in_worker(group)
