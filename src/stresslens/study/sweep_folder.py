"""What the folder of a sweep holds from earlier attempts: sweep.json, the trials, the runs of the best."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, NoReturn

from stresslens.comparison.sweep_file import SweepFile
from stresslens.core.devices import ComputeConfig
from stresslens.core.errors import ConfigError, Notice, StresslensError, TrainingDiverged
from stresslens.core.files import UnreadableRun
from stresslens.core.run_folder import RunFolder
from stresslens.evaluation.record import Failure, read_record
from stresslens.study.earlier_runs import place_aside
from stresslens.study.sweep_journal import SweepJournal
from stresslens.training.autotune import recorded_compute, recorded_differences
from stresslens.training.task import Task

FILE = "sweep.json"
SHOWN = 3
"""Different reasons that are told where every trial failed."""


def trials_left(known: SweepFile | None, size: int) -> int:
    """How many of `size` trials have not ended, as far as sweep.json says."""
    return size - (sum(row.status != "running" for row in known.trials) if known else 0)


def known_sweep(home: Path) -> SweepFile | None:
    """sweep.json as an earlier attempt left it; None where it is missing or, with a Notice, cannot be
    read. The journal and the trials' folders then say what is known."""
    path = home / FILE
    if not path.exists():
        return None
    try:
        known = SweepFile.read(path)
        if not {"asked", "arithmetic"} <= known.model_fields_set:
            raise UnreadableRun(f"{path} does not describe a sweep")
    except UnreadableRun as error:
        warnings.warn(f"{error}; it is written again from the trials", Notice, stacklevel=2)
        return None
    return known


def check_same_sweep(home: Path, known: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
    """Raises ConfigError where two identities differ in more than the number of trials: more are drawn
    as if all had been asked for at once. Halving compares all trials, so there it counts."""
    before, now = (dict(each.get("sweep") or {}) for each in (known, identity))
    if now.get("method") != "halving":
        before["trials"] = now.get("trials")
        listed = [each.get("settings") or [] for each in (before, now)]
        if (before.get("settings") is None) == (now.get("settings") is None):
            shortest = min(map(len, listed))
            if listed[0][:shortest] == listed[1][:shortest]:
                before["settings"] = now.get("settings")
    differing = [key for key in identity if key != "sweep" and known.get(key) != identity[key]]
    if before != now:
        other = [key for key in now if before.get(key) != now[key]]
        differing.insert(0, "sweep")
        if other == ["trials"] and now.get("method") == "halving":
            refuse(home, "what differs: sweep.trials; halving compares all trials, so their number is fixed")
    if differing:
        refuse(home, f"what differs: {', '.join(differing)}")


def refuse(home: Path, why: str) -> NoReturn:
    raise ConfigError(
        f"{home} holds another sweep ({why})\n"
        "to keep both, use --out ELSEWHERE, or another name for the study or the run; "
        "to replace it, delete the folder"
    )


def adopted_compute(
    home: Path, journal: SweepJournal, task_of: Callable[[int], Task], fingerprint: str
) -> dict[str, Any]:
    """The compute settings of the trials, where sweep.json is missing; empty where none has begun.

    `fingerprint` is that of the data. Raises ConfigError for the trials of another sweep.
    """
    compute: dict[str, Any] = {}
    for number in range(len(journal)):
        if number not in journal:
            refuse(home, f"trial {number} of its journal has other settings than this sweep draws")
        task = task_of(number)
        folder = RunFolder(task.folder)
        if folder.config.exists() and folder.record.exists() and folder.begun:
            compute = compute or ComputeConfig(**recorded_compute(folder)).settings()
            if recorded_differences(task) or read_record(folder).data.fingerprint != fingerprint:
                refuse(home, f"trial {number} has another configuration or other data")
    return compute


def all_failed(journal: SweepJournal) -> bool:
    """Whether every trial has failed, and not all of them by divergence, which would come again."""
    failures = [journal.failure(number) for number in range(len(journal))]
    return any(failure is not None and not failure.is_divergence for failure in failures) and all(failures)


def joint_failure(journal: SweepJournal) -> Failure:
    """Why a sweep has no best trial."""
    found = {number: journal.failure(number) for number in range(len(journal))}
    failures = {number: failure for number, failure in found.items() if failure is not None}
    codes = {failure.exit_code for failure in failures.values()}
    if all(failure.is_divergence for failure in failures.values()):
        why = "every trial of the sweep diverged; lower train.lr or set train.clip"
        return Failure(message=why, exit_code=TrainingDiverged.exit_code)
    first = {failure.message: number for number, failure in reversed(failures.items())}
    reasons = [f"trial {number}: {message}" for message, number in reversed(first.items())]
    more = f"; and {len(reasons) - SHOWN} more reasons" if len(reasons) > SHOWN else ""
    return Failure(
        message=f"no trial of the sweep could be trained: {'; '.join(reasons[:SHOWN])}{more}",
        exit_code=codes.pop() if len(codes) == 1 else StresslensError.exit_code,
    )


def make_way(task: Task, varied: Collection[str], before: str) -> Path | None:
    """Sets the run in a task's folder aside, under the name `before`, where it was trained with other
    values of the `varied` settings. Returns its new path; None where nothing was done."""
    folder = RunFolder(task.folder)
    if not (folder.config.exists() and folder.begun):
        return None
    differing = recorded_differences(task)
    if not differing or not all(any(_related(key, each) for each in varied) for key in differing):
        return None
    place = place_aside(task.folder, before)
    task.folder.rename(place)
    return place


def _related(key: str, other: str) -> bool:
    """Whether one dotted key is the other, or a part of it; a plug-in's name may be left out."""
    first, second = key.split("."), other.split(".")
    return all(part in first for part in second) or all(part in second for part in first)
