"""Runs that train in one program, and then go on one after the other."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import torch

from stresslens.core import devices
from stresslens.core.errors import Stopped
from stresslens.core.run_folder import RunFolder
from stresslens.evaluation.record import RunRecord
from stresslens.study import stages
from stresslens.study.record import begin_record, record_end
from stresslens.study.train_stage import BegunTraining, DoneTraining, begun_training
from stresslens.training.autotune import compute_config
from stresslens.training.loop import Show
from stresslens.training.signals import noted
from stresslens.training.stack import Stack, fit_together
from stresslens.training.stack_choice import stackable
from stresslens.training.task import Task, load_data
from stresslens.training.tracking import Tracking

Group = tuple[Task, ...]
"""Tasks that go to one worker, to train in one program where they are several."""


def in_groups(tasks: Sequence[Task], at_once: int) -> list[Group]:
    """The tasks in groups that train in one program, each divided among `at_once` workers."""
    groups: list[Group] = []
    for together in stackable(tasks):
        size = max(1, math.ceil(len(together) / at_once))
        groups += [tuple(together[k : k + size]) for k in range(0, len(together), size)]
    return groups


def carry_out_together(tasks: Group, show: Callable[[Task], Show]) -> Iterator[RunRecord]:
    """Trains the runs in one program and then carries out what is left of each: yields their records,
    in the order of the tasks. Only the first shows the progress of the training.

    Raises Stopped after every run is saved, and the error of a run that cannot begin.
    """
    done = _trained(tasks, show) if len(tasks) > 1 else {}
    for task in tasks:
        yield stages.carry_out(task, show(task), done=done.pop(task.folder, None))


def _trained(tasks: Group, show: Callable[[Task], Show]) -> dict[Path, DoneTraining]:
    """The trainings of these runs, or their errors, by the folders of the runs. Runs that an earlier
    command left at the same place are stacked, and others train apart."""
    done: dict[Path, DoneTraining] = {}
    compute = compute_config(tasks[0])
    devices.keep_memory()
    shows = [show(tasks[0]), *([stages.silent] * (len(tasks) - 1))]
    with torch.random.fork_rng(devices=[]), compute.active(), ExitStack() as locks, noted() as signals:
        for task, shown in zip(map(replace, tasks), shows):
            folder = RunFolder(task.folder)
            locks.enter_context(folder.locked())
            data = load_data(task)
            record = begin_record(task, folder, data)
            if "training" not in stages.stages_due(task, record):
                continue
            record.failures = {}
            tracking = Tracking([], folder, task.base, {}, ())
            try:
                done[task.folder] = begun_training(task, folder, data, record, shown, signals, tracking)
            except Exception as error:
                done[task.folder] = error
        _fit(done)
    return done


def _fit(done: dict[Path, DoneTraining]) -> None:
    """Trains what has begun, and puts errors in the place of trainings that fail."""
    places: dict[tuple[int, int], list[Path]] = defaultdict(list)
    for folder, begun in done.items():
        if isinstance(begun, BegunTraining):
            places[begun.training.state.epoch, begun.training.state.step].append(folder)
    try:
        for folders in places.values():
            stacked = {folder: run for folder in folders if isinstance(run := done[folder], BegunTraining)}
            stack = Stack([run.training for run in stacked.values()])
            fit_together(stack)
            for folder, run in stacked.items():
                error = stack.errors.get(run.training)
                done[folder] = error or replace(run, stacked_runs=len(stacked))
    except Stopped as error:
        for folder in done:
            record_end(RunFolder(folder), error)
        raise
