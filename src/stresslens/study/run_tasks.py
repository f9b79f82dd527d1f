"""The runs of a study, or of a call from Python, as tasks. Their folders may have the names that an
earlier version gave them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from stresslens.config import study_file
from stresslens.config.ensembles import variant_seeds
from stresslens.config.function_files import FOLDER
from stresslens.config.run_names import data_and_model, folder_name, value_in_words
from stresslens.config.schema import RESUME_SAFE_KEYS, VariantConfig
from stresslens.core.copies import copied
from stresslens.core.data import Data
from stresslens.core.errors import ConfigError
from stresslens.core.module_digest import ModuleDigest, digest_of
from stresslens.core.run_folder import RunFolder
from stresslens.evaluation.record import read_record
from stresslens.training.autotune import holds_run
from stresslens.training.task import Task, load_data


def tasks_of(study: study_file.Study, folder: Path) -> list[Task]:
    """Every run of the study: each variant with each seed, and its folder."""
    return [
        Task(
            study.name,
            variant.name,
            seed,
            variant.config,
            variant.base,
            folder / variant.name / f"seed-{seed}",
            repeats=study.repeats,
        )
        for variant in study.variants
        for seed in variant_seeds(variant.config, study.seeds)
    ]


def with_kept_names(study: study_file.Study, folder: Path) -> study_file.Study:
    """The study with the names that an earlier version gave to its variants' folders, wherever such a
    folder is there with the same settings, and none with them has the name of today."""
    found = {
        name: kept
        for name, names in study.kept_names.items()
        for kept in reversed(names)
        if name != kept and (folder / kept).is_dir()
    }
    if not found:
        return study
    there = {task.run for task in tasks_of(study, folder) if task.run in found and _is_kept(task)}
    found = {name: kept for name, kept in found.items() if name not in there}
    if not found:
        return study
    tasks = tasks_of(study_file.renamed_variants(study, found), folder)
    same = {task.run for task in tasks if _is_kept(task)}
    return study_file.renamed_variants(study, {name: kept for name, kept in found.items() if kept in same})


def _is_kept(task: Task) -> bool:
    """Whether the task's folder holds a run of its settings; a swept variant has those of its best
    trial, which are known later."""
    try:
        return (task.folder.parent / "sweep.json").is_file() or holds_run(task)
    except ConfigError:
        return False


def python_task(
    config: VariantConfig,
    values: Mapping[str, Any],
    out: Path,
    name: str | None,
    seed: int,
    *,
    data: Data | None,
    module: nn.Module | None,
) -> Task:
    """The run of a call from Python, whose plain `values` were validated as `config`; `data` and
    `module` are the caller's own. Without a `name` its folder is called like what the caller gave.

    Raises ConfigError where the folder holds a run whose module cannot be compared with `module`.
    """
    kind = "estimator" if config.estimator is not None else "model"
    found = {"data": values["data"], "model": values[kind]}
    digest = None
    if data is not None:
        config = replace(config, data=f"own data {data.name}")
        found["data"] = f"{data.name}-{data.fingerprint[:6]}"
    if module is not None:
        digest, of = digest_of(copied(module).train()), type(module).__name__
        config = replace(config, model=f"own module {of} {digest.text(12)}")
        found["model"] = f"{of}-{digest.text(6)}"
    given = {**values["train"], **({"input": values["input"]} if values["input"] else {})}
    written = f"{out / FOLDER}{os.sep}"
    options = [
        f"{k}={value_in_words(v).replace(written, '')}" for k, v in given.items() if k not in RESUME_SAFE_KEYS
    ]
    today = name or folder_name(",".join(["run", *data_and_model(found["data"], found["model"])]), options)
    task = Task(out.name, today, seed, config, Path.cwd(), out / today / f"seed-{seed}", data, module)
    before = replace(task, run="run", folder=out / "run" / f"seed-{seed}")
    if name is None and not task.folder.exists() and _is_kept(before) and _has_data(before):
        task = before
    if digest is not None:
        _check_comparable(digest, task.folder)
    return task


def _has_data(task: Task) -> bool:
    """Whether the run in the task's folder was trained on the caller's own data, if there are any."""
    record = read_record(RunFolder(task.folder))
    return task.data is None or record.data.fingerprint == load_data(task).fingerprint


def _check_comparable(digest: ModuleDigest, folder: Path) -> None:
    if digest.opaque and RunFolder(folder).begun:
        why = f"your module holds objects that cannot be compared ({', '.join(digest.opaque)})"
        raise ConfigError(f"{folder}: {why}; use another name or out, or delete the folder")
