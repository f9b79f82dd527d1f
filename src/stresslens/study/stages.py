"""The stages of one run: training, predictions, evaluations, trackers. A finished stage is
skipped, and a stage that fails leaves the others to be done."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from functools import partial

import torch
from torch import nn

from stresslens.config.old_words import in_words_of_0_1
from stresslens.config.own_plugins import source_digests
from stresslens.config.schema import EVALUATION_KEYS
from stresslens.core import devices, distributed
from stresslens.core.data import Data
from stresslens.core.errors import ProcessLost, Stopped
from stresslens.core.fingerprint import fingerprint_of
from stresslens.core.run_folder import RunFolder
from stresslens.evaluation.record import RunRecord, noting_shortages, read_record, write_record
from stresslens.evaluation.saved_model import open_model
from stresslens.study import evaluation_stages
from stresslens.study.failures import LOG, failure_of
from stresslens.study.model_files import restore_model
from stresslens.study.predict_stage import predict_stage
from stresslens.study.record import Stage, begin_record, record_end
from stresslens.study.train_stage import DoneTraining, train_stage
from stresslens.training import tracking_summary
from stresslens.training.autotune import compute_config
from stresslens.training.loop import Show
from stresslens.training.state import TrainingState
from stresslens.training.task import Task, load_data
from stresslens.training.tracking import Tracking


def silent(position: TrainingState, epochs: int, done: float) -> None:
    """Shows nothing of a training."""


def carry_out(task: Task, show: Show = silent, done: DoneTraining | None = None) -> RunRecord:
    """Carries out the stages of a run that are left, and returns its record, whose `failures` are the
    stages that failed. A run without a model has no further stages; an evaluation that fails leaves
    the others to be done. `done` is the training, or its error, where it has ended already.

    Raises Stopped after recording it, and the error of a run that cannot begin.
    """
    task = replace(task)  # gets a new plan: the user's files may have changed since the last one
    folder = RunFolder(task.folder)
    distributed.group()  # raises where torchrun started this process and no group was joined
    with folder.locked():
        devices.keep_memory()
        data = load_data(task)
        record = begin_record(task, folder, data)
        due = stages_due(task, record)
        if "training" not in due:
            try:
                restore_model(task, folder, data, record)
            except Exception as error:
                record.failures = {"model": failure_of(error, folder.path, "model")}
                write_record(folder, record)
                return _ended(folder, record)
        if not due and not record.failures:
            return _ended(folder, record)
        record.failures = {}
        (folder.path / LOG).unlink(missing_ok=True)
        compute = compute_config(task)
        devices.pick_device(compute.device)
        cuda = [torch.device(compute.device)] if torch.device(compute.device).type == "cuda" else []
        of_stage: dict[str, Stage] = {**STAGES, "training": partial(train_stage, done=done)}
        with (
            torch.random.fork_rng(devices=cuda),
            compute.active(),
            closing(_tracking(task, folder)) as tracking,
            noting_shortages(record),
        ):
            for stage, fingerprint in due.items():
                devices.release_memory()
                try:
                    of_stage[stage](task, folder, data, record, show, tracking)
                except Stopped as error:
                    record_end(folder, error)
                    raise
                except ProcessLost:
                    raise
                except Exception as error:
                    failure = failure_of(error, folder.path, stage)
                    if stage in MODEL_STAGES:  # what it noted goes, since it will be repeated
                        record = read_record(folder)
                        record.failures = {stage: failure}
                        break
                    record.failures = {**record.failures, stage: failure}
                else:
                    if fingerprint:
                        record.stages[stage] = fingerprint
                write_record(folder, record)
        if tracking.failed:  # the same command tries again
            record.stages.pop("track", None)
            write_record(folder, record)
        return _ended(folder, record)


def _ended(folder: RunFolder, record: RunRecord) -> RunRecord:
    """The record, which says on disk how the run has ended."""
    status, message = _status(record)
    if (record.status, record.message) != (status, message):
        record.status, record.message = status, message
        write_record(folder, record)
    return record


def _status(record: RunRecord) -> tuple[str, str]:
    """The status of a run whose stages have ended, and why it is not `finished`."""
    for stage in MODEL_STAGES:
        if (failure := record.failures.get(stage)) is not None:
            return ("diverged" if failure.is_divergence else "failed"), failure.message
    missing = (f"{stage}: {failure.message}" for stage, failure in record.failures.items())
    return ("incomplete" if record.failures else "finished"), "; ".join(missing)


def stages_due(task: Task, record: RunRecord) -> dict[str, str]:
    """The stages that are left to do, with the fingerprint of what each is done for. Trackers of the
    caller's own are told each time, which has none."""
    rung = "" if task.until is None else f" to epoch {task.until}"
    due = dict.fromkeys(("training", "predictions"), f"{record.fingerprint}{rung}")
    for key in EVALUATION_KEYS:
        section = task.plan.configuration.get(key)
        if section:
            digests = source_digests(task.plan.settings[key], base=task.base)
            due[key] = fingerprint_of([record.fingerprint, in_words_of_0_1(section, (key,)), *digests])
    due = {
        stage: fingerprint for stage, fingerprint in due.items() if record.stages.get(stage) != fingerprint
    }
    return {**due, "track": due.get("track", "")} if task.trackers else due


def _tracking(task: Task, folder: RunFolder) -> Tracking:
    """The run's trackers, not started yet."""
    config = {"study": task.study, "run": task.run, "seed": task.seed, **task.plan.training_settings}
    return Tracking(task.config.track or (), folder, task.base, config, task.trackers)


def _track(
    task: Task, folder: RunFolder, data: Data, record: RunRecord, show: Show, tracking: Tracking
) -> None:
    """Sends the summary of the run to its trackers; a tracker that was added later
    gets all earlier entries too."""
    tracking.begin()
    model = open_model(folder, trust=True, module=task.module)
    for entry in tracking_summary.entries_of(folder, model, data, record, tracking.config):
        tracking.tell(entry)


def _evaluation_stage(evaluate: Callable[[Task, RunFolder, nn.Module, Data, RunRecord], None]) -> Stage:
    def stage(
        task: Task, folder: RunFolder, data: Data, record: RunRecord, show: Show, tracking: Tracking
    ) -> None:
        evaluate(
            task,
            folder,
            compute_config(task).place(open_model(folder, trust=True, module=task.module)),
            data,
            record,
        )

    return stage


MODEL_STAGES = ("training", "predictions")
"""The stages that all later ones need."""
STAGES: dict[str, Stage] = {
    "training": train_stage,
    "predictions": predict_stage,
    **{key: _evaluation_stage(evaluate) for key, evaluate in evaluation_stages.STAGES.items()},
    "track": _track,
}
"""The stages of a run, in this order."""
