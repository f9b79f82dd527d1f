"""The stages of one run: train, then predict. Each leaves files, and is skipped when they are there."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing

import torch
from torch import nn

from stresslens.config import registry, study_file
from stresslens.config.old_words import in_words_of_0_1
from stresslens.config.schema import EVALUATION_KEYS
from stresslens.core import devices, distributed
from stresslens.core.data import Data
from stresslens.core.errors import Stopped, TrainingDiverged
from stresslens.core.fingerprint import fingerprint_of
from stresslens.core.run_folder import RunFolder
from stresslens.evaluation.record import RunRecord, write_record
from stresslens.evaluation.saved_model import open_model
from stresslens.study import evaluation_stages
from stresslens.study.predict_stage import predict_stage
from stresslens.study.record import Stage, begin_record, record_end
from stresslens.study.train_stage import train_stage
from stresslens.training import tracking_summary
from stresslens.training.autotune import compute_config
from stresslens.training.loop import Show
from stresslens.training.task import Task, configuration, load_data, variant_settings
from stresslens.training.tracking import Tracking


def carry_out(task: Task, show: Show = lambda position, epochs, done: None) -> RunRecord:
    """Does what is left of a run and returns its record. Raises Stopped and TrainingDiverged after
    recording them."""
    folder = RunFolder(task.folder)
    distributed.group()  # refuses what torchrun started and nobody joined
    with folder.locked():
        devices.keep_memory()
        data = load_data(task)
        record = begin_record(task, folder, data)
        due = _due(task, record)
        if not due:
            return record
        compute = compute_config(task)
        devices.pick_device(compute.device)
        cuda = [torch.device(compute.device)] if torch.device(compute.device).type == "cuda" else []
        tracking = _tracking(task, folder)
        with torch.random.fork_rng(devices=cuda), compute.active(), closing(tracking):
            for stage, fingerprint in due.items():
                try:
                    STAGES[stage](task, folder, data, record, show, tracking)
                except (Stopped, TrainingDiverged) as error:
                    record_end(folder, record, error)
                    raise
                record.stages[stage] = fingerprint
                write_record(folder, record)
        if tracking.failed:  # so that the same command tries again
            record.stages.pop("track", None)
        if record.status != "finished" or tracking.failed:
            record.status, record.message = "finished", ""
            write_record(folder, record)
        return record


def _due(task: Task, record: RunRecord) -> dict[str, str]:
    """The stages that are left to do, with what they will have been done for."""
    rung = "" if task.until is None else f" to epoch {task.until}"
    due = dict.fromkeys(("training", "predictions"), f"{record.fingerprint}{rung}")
    for key in EVALUATION_KEYS:
        asked = configuration(task).get(key)
        if asked:
            own = registry.source_digests(study_file.as_values(task.config)[key], base=task.base)
            due[key] = fingerprint_of([record.fingerprint, in_words_of_0_1(asked, (key,)), *own])
    return {
        stage: fingerprint for stage, fingerprint in due.items() if record.stages.get(stage) != fingerprint
    }


def _tracking(task: Task, folder: RunFolder) -> Tracking:
    """The run's trackers, not begun."""
    trained = {key: value for key, value in variant_settings(task).items() if key not in EVALUATION_KEYS}
    config = {"study": task.study, "run": task.run, "seed": task.seed, **trained}
    return Tracking(task.config.track or (), folder, task.base, config)


def _track(
    task: Task, folder: RunFolder, data: Data, record: RunRecord, show: Show, tracking: Tracking
) -> None:
    """Tells the trackers what the run came to, and those that were asked for later all that went before."""
    tracking.begin()
    model = open_model(folder, trust=True, module=task.module)
    for entry in tracking_summary.entries_of(folder, model, data, record, tracking.config):
        tracking.tell(entry)


def _examine(by: Callable[[Task, RunFolder, nn.Module, Data, RunRecord], None]) -> Stage:
    def stage(
        task: Task, folder: RunFolder, data: Data, record: RunRecord, show: Show, tracking: Tracking
    ) -> None:
        by(
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
    **{key: _examine(by) for key, by in evaluation_stages.STAGES.items()},
    "track": _track,
}
"""What is done with a run, in this order."""
