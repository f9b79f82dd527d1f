"""The record of a run, record.json: created or resumed at the start, with config.yaml, and its
status at the end."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial

from stresslens.config.installed_plugins import packages_of
from stresslens.config.registry import VOCABULARY
from stresslens.config.yaml_source import yaml_text
from stresslens.core import distributed
from stresslens.core.data import Data
from stresslens.core.errors import ConfigError, Stopped
from stresslens.core.files import write_atomically, write_bytes, write_json
from stresslens.core.run_folder import FORMAT, RunFolder, environment
from stresslens.core.version import __version__
from stresslens.evaluation.data_check import data_findings
from stresslens.evaluation.duplicates import copies_in_earlier_splits
from stresslens.evaluation.record import (
    DataRecord,
    DivisionRecord,
    Failure,
    RunRecord,
    read_record,
    write_record,
)
from stresslens.study import evaluation_stages, longer_runs
from stresslens.study.changes import change_since
from stresslens.training.autotune import compute_config
from stresslens.training.loop import Show
from stresslens.training.task import Task
from stresslens.training.tracking import Tracking

Stage = Callable[[Task, RunFolder, Data, RunRecord, Show, Tracking], None]


def record_end(folder: RunFolder, error: Stopped) -> None:
    """Writes to the record that the run was stopped, and why.

    What an unfinished stage noted is left out, since the stage will be repeated.
    """
    record = read_record(folder)
    record.status, record.message = "stopped", str(error)
    write_record(folder, record)


def record_left_out(task: Task, failure: Failure) -> RunRecord:
    """The record of a run that is not begun, because what it starts from is missing. It is written
    unless the folder holds a model, or a part of its training."""
    folder = RunFolder(task.folder)
    record = RunRecord(
        format=FORMAT,
        version=__version__,
        status="left out",
        message=failure.message,
        study=task.study,
        run=task.run,
        seed=task.seed,
        data=DataRecord(),
        stages={},
        failures={"training": failure},
    )
    with folder.locked():
        if not folder.begun:
            write_record(folder, record)
    return record


def begin_record(task: Task, folder: RunFolder, data: Data) -> RunRecord:
    """The record of this folder: new, or as an earlier attempt left it. Raises ConfigError for a
    folder with other data, configuration or code, and for an evaluation that is not possible with
    this data."""
    evaluation_stages.check_sections(task, data)
    evaluation_stages.check_surrogate_run(task)
    fingerprint = task.plan.fingerprint(data)
    if folder.record.exists() and folder.begun and (kept := read_record(folder)).status != "left out":
        if kept.fingerprint != fingerprint:
            raise ConfigError(
                f"{task.folder}: {change_since(task, kept, data)}; use --out ELSEWHERE, "
                "or delete the folder to start again"
            )
        kept.status = kept.status if kept.usable else "running"
        _describe(task, folder)
        return kept
    _describe(task, folder)
    compute = compute_config(task)
    packages = packages_of(task.plan.settings, VOCABULARY)
    plugins = {"plugins": packages} if packages else {}
    facts = environment(compute.settings() | distributed.group().facts(compute.device) | plugins)
    write_json(folder.environment, facts.as_json())
    record = RunRecord(
        format=FORMAT,
        version=__version__,
        status="running",
        message="",
        study=task.study,
        run=task.run,
        seed=task.seed,
        fingerprint=fingerprint,
        plugins=sorted(copy for _, copy in task.plan.own_sources.values()),
        classes=list(data.classes),
        shape=data.shape,
        data=_data_record(data),
        reads_of_test=0,
        watched_test=task.config.estimator is None and "test" in task.config.train.watch,
        resumed_from=[],
        findings=[],
        stages={},
        parent=longer_runs.parent_of(task.folder),
    )
    write_record(folder, record)
    return record


def _data_record(data: Data) -> DataRecord:
    return DataRecord(
        name=data.name,
        fingerprint=data.fingerprint,
        splits={name: split.fingerprint for name, split in data.splits.items()},
        sizes={name: len(split) for name, split in data.splits.items()},
        notes=list(data.notes),
        findings=data_findings(data),
        copies=copies_in_earlier_splits(data),
        division=DivisionRecord(**data.division) if data.division else None,
    )


def _describe(task: Task, folder: RunFolder) -> None:
    """Writes config.yaml and copies of custom plug-ins, unless they exist already."""
    for file, copy in task.plan.own_sources.values():
        if not (folder.path / "plugins" / copy).exists():
            write_bytes(folder.path / "plugins" / copy, file.read_bytes())
    for kept in task.plan.kept_files:
        for file, copy in kept.copies():
            if not (folder.path / copy).exists():
                with file.open("rb") as content:
                    write_atomically(folder.path / copy, partial(shutil.copyfileobj, content))
    header = "# stresslens run on this file repeats the run\n"
    text = header + yaml_text(task.plan.configuration)
    if not folder.config.exists() or folder.config.read_text(encoding="utf-8") != text:
        write_bytes(folder.config, text.encode())
