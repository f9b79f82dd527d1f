"""An ensemble or a soup of runs that were trained before, as a study of one run."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from stresslens.config import registry, study_file
from stresslens.config.ensembles import ENSEMBLE, SOUP
from stresslens.config.run_config import read_run_data
from stresslens.config.run_names import folder_name
from stresslens.core.ensembles import Average
from stresslens.core.errors import ConfigError
from stresslens.core.files import UnreadableRun
from stresslens.core.run_folder import RunFolder
from stresslens.evaluation.run_data import path_found

STUDY = "ensembles"
"""The study of ensembles that are made by a command."""

SOUPS = {"weights": "all", "weights-greedy": "greedy"}
"""The averages that make one net of the members, with the choice of a soup."""


def ensemble_study(runs: Sequence[Path], *, average: str, name: str | None) -> study_file.Study:
    """The study of an ensemble or a soup of these runs, on the data set of the first, of which it takes
    and sets aside the same images. Raises ConfigError where a folder holds no trained run."""
    values = {**ensemble_values(runs, average), **_data_of(runs[0])}
    called = name or default_name(runs, average)
    described = study_file.expand_study(
        {**values, "runs": {called: {}}, "repeats": [0]}, name=STUDY, base=Path.cwd()
    )
    return study_file.named_alone(described, called)


def ensemble_values(runs: Sequence[Path], average: str) -> dict[str, Any]:
    """The setting `model` of an ensemble, or a soup, of the runs in these folders. Raises ConfigError for
    a folder that is not there and an average that is not known."""
    if average not in (*SOUPS, *get_args(Average)):
        raise ConfigError(
            f"average: {average!r} is not known; it is 'probabilities' or 'logits' of the members, or "
            "'weights' or 'weights-greedy' for one net of their mean weights"
        )
    if missing := [run for run in runs if not run.is_dir()]:
        raise ConfigError(f"there is no such folder: {missing[0]}; give folders of runs, or of variants")
    named = [_with_slash(run) for run in runs]
    if average in SOUPS:
        return {"model": {SOUP: {"runs": named, "choose": SOUPS[average]}}}
    return {"model": {ENSEMBLE: {"runs": named, "average": average}}}


def default_name(runs: Sequence[Path], average: str) -> str:
    """The name of the first run's variant, and how many more folders there are; of a soup also that."""
    first = runs[0].resolve()
    variant = first.parent.name if first.name.startswith("seed-") else first.name
    more = f"-and-{len(runs) - 1}-more" if len(runs) > 1 else ""
    soup = "" if average not in SOUPS else "-soup" if SOUPS[average] == "all" else "-greedy-soup"
    return folder_name(f"{variant}{more}{soup}", [])


def _with_slash(path: Path) -> str:
    text = os.fspath(path)
    return text if "/" in text else f"./{text}"


def _data_of(run: Path) -> dict[str, Any]:
    """The data set of a run, or of the first seed of a variant, with a path that is found from here, and
    what it sets aside of it."""
    folder = next(
        (each for each in (run, *sorted(run.glob("seed-*"))) if (each / "config.yaml").is_file()), run
    )
    try:
        found = read_run_data(RunFolder(folder).config)
    except UnreadableRun:
        variants = sorted({path.parent for path in run.glob("*/seed-*")})
        hint = f"it is a study; name a variant in it: {variants[0]}" if variants else "it has no config.yaml"
        raise ConfigError(f"{run} is not the folder of a run or of a variant of a study: {hint}") from None
    value = found.data
    if isinstance(value, str) and value.startswith("own data"):
        raise ConfigError(f"{run} was trained on your {value}; use sl.ensemble(runs, data=DATA) in Python")
    name, options = registry.name_and_options("datasets", value)
    paths = {
        key: str(path_found(Path(options[key]).expanduser(), RunFolder(folder)))
        for key in ("path", "corrections")
        if isinstance(options.get(key), str)
    }
    data = {name: {**options, **paths}} if isinstance(value, Mapping) else value
    return {"data": data, "train": found.train.model_dump(exclude_none=True)}
