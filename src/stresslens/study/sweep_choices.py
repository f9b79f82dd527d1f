"""The single choices of a sweep: where the study file has them, and whether one of them can be trained."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from stresslens.config.registry import Keys
from stresslens.config.search_space import Setting
from stresslens.config.study_file import Study
from stresslens.evaluation.record import Failure
from stresslens.study.failures import error_of, failure_of
from stresslens.study.preconditions import refusal_of
from stresslens.study.sweep_folder import SHOWN
from stresslens.training.task import Task


def place_for(study: Study, variant: str) -> str:
    """Where the study file has a variant, for messages about it; empty for the only variant of a study
    without a file."""
    return study.places.get(variant, "" if len(study.variants) == 1 else f"the run {variant}")


def choices_of(study: Study, settings: Sequence[Setting]) -> dict[str, dict[str, Any]]:
    """The listed settings, or each choice and each end of a range alone, by their values in words with
    their place in the study file."""
    assert study.sweep is not None
    alone: list[tuple[Keys, dict[str, Any]]] = [
        (at, {setting.key: value}) for setting in settings for value, at in setting.ends
    ]
    listed = [(("sweep", "settings", index), each) for index, each in enumerate(study.sweep.settings or ())]
    return {in_words(each, study.sweep_places.get(at)): each for at, each in [*listed, *alone]}


def in_words(settings: Mapping[str, Any], place: str | None = None) -> str:
    """The values of settings, behind their place in the study file."""
    values = ", ".join(f"{key}={json.dumps(value)}" for key, value in settings.items())
    return f"{place}: {values}" if place else values


def check_all(checks: Mapping[str, Callable[[], None]], folder: Path) -> None:
    """Calls the check of every variant, and raises all that they raise, each behind its place."""
    refused: dict[str, Failure] = {}
    for place, check in checks.items():
        try:
            check()
        except Exception as error:
            refused[place] = failure_of(error, folder, place)
    if refused:
        raise error_of(refused)


def check_any(choices: Mapping[str, Task], home: Path) -> None:
    """Raises the reasons where none of the choices can be trained, each behind its choice in words;
    a reason that all share is told once."""
    refused: dict[str, Failure] = {}
    for choice, task in choices.items():
        why = refusal_of(task, home)
        if why is None:
            return
        refused[choice] = why
    reasons = {why.message for why in refused.values()}
    lines = [f"{choice}: {why.message}" for choice, why in refused.items()][:SHOWN]
    if len(reasons) == 1 and len(refused) > 1:
        lines = [f"with none of {'; '.join(list(refused)[:SHOWN])}: {reasons.pop()}"]
    if len(refused) > SHOWN:
        lines.append(f"and {len(refused) - SHOWN} more choices")
    codes = [why.exit_code for why in refused.values()]
    message = "\n".join([f"sweep: no trial can be trained: {lines[0]}", *lines[1:]])
    raise error_of({"": Failure(message=message, exit_code=codes[0] if len(set(codes)) == 1 else 1)})


def first_able(tasks: Iterable[Task], home: Path) -> Task:
    """The first task that can be trained, or else the first."""
    tasks = list(tasks)
    return next((task for task in tasks if refusal_of(task, home) is None), tasks[0])
