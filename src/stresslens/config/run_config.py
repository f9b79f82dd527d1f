"""config.yaml in a run's folder: the configuration that the run was made with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from stresslens.config.repeats import Repeats
from stresslens.config.schema import PluginValue, Subset
from stresslens.config.yaml_source import Source
from stresslens.core.errors import ConfigError
from stresslens.core.files import UnreadableRun
from stresslens.core.json_file import JsonFile, first_problem
from stresslens.core.types import Seed


class TrainedOn(JsonFile):
    """The part of `train` that says which images were used."""

    subset: Subset | None = None
    calibration: int | float | None = None


class RunData(JsonFile):
    """The data set of a run, and how it is divided."""

    data: PluginValue
    repeats: Annotated[list[Seed], Field(min_length=1)] | Repeats
    train: TrainedOn


def read_run_config(path: Path) -> dict[str, Any]:
    """The plain values of a config.yaml, as it was written. Raises UnreadableRun."""
    try:
        source = Source.read(path)
    except ConfigError as error:
        raise UnreadableRun(str(error)) from None
    if source.problems:
        first = source.problems[0]
        raise UnreadableRun(f"{source.place(first.path)}: {'.'.join(map(str, first.path))}: {first.message}")
    return source.values


def read_run_data(path: Path) -> RunData:
    """The data set of a run from its config.yaml. Raises UnreadableRun."""
    try:
        return RunData.model_validate_json(json.dumps(read_run_config(path)))
    except ValidationError as error:
        raise UnreadableRun(f"{path} is damaged: {first_problem(error)}") from None
