"""A study from a dictionary, as Python gives it instead of a study file."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from stresslens.config import study_file
from stresslens.config.ablation import AblationRequest
from stresslens.config.data_paths import images_at
from stresslens.config.run_names import folder_name, label, value_in_words
from stresslens.config.yaml_source import of_override
from stresslens.core.errors import ConfigError, Problems
from stresslens.core.run_folder import RunFolder
from stresslens.study.run_tasks import tasks_of
from stresslens.training.autotune import recorded_differences
from stresslens.training.task import Task


def study_from(
    values: Mapping[str, Any],
    overrides: Sequence[str],
    out: Path,
    ablation: AblationRequest | None = None,
) -> study_file.Study:
    """The study that a dictionary describes; with an `ablation`, that of its ingredients. Without the key
    `study` it is called like its data.

    A variant whose folder below `out` holds a run of other settings gets a folder of its own, which is
    called by what differs. Raises ConfigError with every mistake.
    """
    plain: Any = _plain(values, "study")
    data = plain.get("data", "digits")
    if isinstance(data, str) and (at_path := images_at(data)) is not None:
        data = plain["data"] = at_path
    try:
        study = study_file.expand_study(
            plain, overrides, name=label(data), base=Path.cwd(), ablation=ablation
        )
    except Problems as error:
        raise ConfigError(
            "\n".join(_said(problem.path, problem.message) for problem in error.problems)
        ) from None
    return _named_by_difference(study, out / study.name)


def _said(path: Sequence[str | int], message: str) -> str:
    if path[:1] == ("command line",):
        return f"{of_override(tuple(path))}: {message}"
    return ": ".join(filter(None, [".".join(map(str, path)), message]))


def _plain(value: Any, place: str) -> Any:
    """Plain values, as a study file has them. Raises ConfigError for what cannot be written down."""
    if isinstance(value, Mapping):
        return {str(key): _plain(each, f"{place}.{key}") for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each, place) for each in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "tolist"):
        return _plain(value.tolist(), place)
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        raise ConfigError(
            f"{place.removeprefix('study.')}: a {type(value).__name__} is no setting that can be written "
            "down; modules and arrays of your own are for stresslens.train"
        ) from None
    return value


def _named_by_difference(study: study_file.Study, folder: Path) -> study_file.Study:
    """The study with other folders for the variants whose folders hold runs of other settings."""
    changes: dict[str, list[str]] = {}
    for task in tasks_of(study, folder):
        if task.run not in changes and (texts := _difference(task)):
            changes[task.run] = texts
    names = {name: folder_name(name, texts) for name, texts in changes.items()}
    renamed = study_file.renamed_variants(study, names)
    more = {names[name]: [*study.overrides.get(name, []), *texts] for name, texts in changes.items()}
    return replace(renamed, overrides={**renamed.overrides, **more})


def _difference(task: Task) -> list[str]:
    """What differs from the run in the task's folder, as overrides; empty where there is none, and for a
    swept variant, whose settings are those of its best trial."""
    folder = RunFolder(task.folder)
    if not (folder.config.exists() and folder.begun) or (task.folder.parent / "sweep.json").is_file():
        return []
    differing = recorded_differences(task)
    outer = [key for key in differing if not any(key.startswith(f"{other}.") for other in differing)]
    return [f"{key}={value_in_words(differing[key][1])}" for key in outer]
