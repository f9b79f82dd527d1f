"""The stages of one run: training, predictions, evaluations, trackers. A finished stage is
skipped."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace

import torch
from torch import nn

from stresslens.config.old_words import in_words_of_0_1
from stresslens.config.own_plugins import source_digests
from stresslens.config.schema import EVALUATION_KEYS
from stresslens.core import devices, distributed
from stresslens.core.data import Data
from stresslens.core.errors import Stopped, TrainingDiverged
from stresslens.core.fingerprint import fingerprint_of
from stresslens.core.run_folder import RunFolder
from stresslens.evaluation.record import RunRecord, noting_shortages, write_record
from stresslens.evaluation.saved_model import open_model
from stresslens.study import evaluation_stages
from stresslens.study.predict_stage import predict_stage
from stresslens.study.record import Stage, begin_record, record_end
from stresslens.study.train_stage import train_stage
from stresslens.training import tracking_summary
from stresslens.training.autotune import compute_config
from stresslens.training.loop import Show
from stresslens.training.task import Task, load_data
from stresslens.training.tracking import Tracking


def carry_out(task: Task, show: Show = lambda position, epochs, done: None) -> RunRecord:
    """Carries out the stages of a run that are left, and returns its record. Raises Stopped and
    TrainingDiverged after recording them."""
    task = replace(task)  # gets a new plan: the user's files may have changed since the last one
    folder = RunFolder(task.folder)
    distributed.group()  # raises where torchrun started this process and no group was joined
    with folder.locked():
        devices.keep_memory()
        data = load_data(task)
        record = begin_record(task, folder, data)
        due = _due(task, record)
        if not due:
            return _finished(folder, record)
        compute = compute_config(task)
        devices.pick_device(compute.device)
        cuda = [torch.device(compute.device)] if torch.device(compute.device).type == "cuda" else []
        tracking = _tracking(task, folder)
        with (
            torch.random.fork_rng(devices=cuda),
            compute.active(),
            closing(tracking),
            noting_shortages(record),
        ):
            for stage, fingerprint in due.items():
                devices.release_memory()
                try:
                    STAGES[stage](task, folder, data, record, show, tracking)
                except (Stopped, TrainingDiverged) as error:
                    record_end(folder, error)
                    raise
                record.stages[stage] = fingerprint
                write_record(folder, record)
        if tracking.failed:  # the same command tries again
            record.stages.pop("track", None)
            write_record(folder, record)
        return _finished(folder, record)


def _finished(folder: RunFolder, record: RunRecord) -> RunRecord:
    """The record, which says on disk that the run is finished."""
    if record.status != "finished":
        record.status, record.message = "finished", ""
        write_record(folder, record)
    return record


def _due(task: Task, record: RunRecord) -> dict[str, str]:
    """The stages that are left to do, with the fingerprint of what each is done for."""
    rung = "" if task.until is None else f" to epoch {task.until}"
    due = dict.fromkeys(("training", "predictions"), f"{record.fingerprint}{rung}")
    for key in EVALUATION_KEYS:
        section = task.plan.configuration.get(key)
        if section:
            digests = source_digests(task.plan.settings[key], base=task.base)
            due[key] = fingerprint_of([record.fingerprint, in_words_of_0_1(section, (key,)), *digests])
    return {
        stage: fingerprint for stage, fingerprint in due.items() if record.stages.get(stage) != fingerprint
    }


def _tracking(task: Task, folder: RunFolder) -> Tracking:
    """The run's trackers, not started yet."""
    config = {"study": task.study, "run": task.run, "seed": task.seed, **task.plan.training_settings}
    return Tracking(task.config.track or (), folder, task.base, config)


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


STAGES: dict[str, Stage] = {
    "training": train_stage,
    "predictions": predict_stage,
    **{key: _evaluation_stage(evaluate) for key, evaluate in evaluation_stages.STAGES.items()},
    "track": _track,
}
"""The stages of a run, in this order."""
