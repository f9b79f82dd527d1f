"""Going on with a trained run for more epochs: a new run in its place, which starts from its last
checkpoint, or from the start where no epoch was trained. The run before is its parent, and is kept in
`earlier/`."""

from __future__ import annotations

import inspect
import math
import shlex
import shutil
import warnings
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from torch import nn

from stresslens.config import registry
from stresslens.config.yaml_source import yaml_text
from stresslens.core.errors import ConfigError
from stresslens.core.files import read_json, write_bytes, write_json
from stresslens.core.run_folder import RunFolder
from stresslens.evaluation.record import ParentRun, read_record
from stresslens.study.changes import change_since
from stresslens.study.earlier_runs import place_aside
from stresslens.training.autotune import as_recorded, recorded_differences
from stresslens.training.optimization import build_optimizer, build_schedule
from stresslens.training.task import Task, load_data

PARENT = "parent.json"
KEY = "train.epochs"


def parent_of(run: Path) -> ParentRun | None:
    """The run that the run in this folder goes on with; None for one that began by itself."""
    file = run / PARENT
    return ParentRun.model_validate(read_json(file)) if file.is_file() else None


def go_on(tasks: Sequence[Task]) -> list[str]:
    """Prepares the tasks that ask for nothing but more epochs than the run in their folder has: each
    folder then holds a new run with the last checkpoint of its parent. Returns a sentence for each.

    The result has the same bits as all epochs at once. Raises ConfigError for a schedule or an objective
    that depends on the number of epochs, so that the epochs of the run are not the first of the longer
    one.
    """
    longer = [(task, before) for task in tasks if (before := _epochs_before(task)) is not None]
    if refused := [f"{task.folder}: {why}" for task, before in longer if (why := _change(task, before))]:
        raise ConfigError("\n".join([*refused, "use --out ELSEWHERE, or delete the folder to start again"]))
    spread = ((task, _depends_on_epochs(task, before)) for task, before in longer)
    if refused := [f"{task.folder}: {why}" for task, why in spread if why]:
        raise ConfigError("\n".join([*refused, _ways_out(*longer[0])]))
    return [_go_on(task, before) for task, before in longer]


def _epochs_before(task: Task) -> int | None:
    """The epochs of the run in the task's folder, if the task differs in nothing but more epochs; else
    None."""
    fresh, folder = _prepared(task.folder), RunFolder(task.folder)
    if fresh.is_dir() and not folder.path.exists():  # killed between the two moves
        fresh.rename(folder.path)
    begun = folder.checkpoint.exists() or folder.weights.exists()
    if not (folder.config.exists() and begun and folder.record.exists()) or task.config.train.probed:
        return None
    differing = recorded_differences(task)
    before, now = differing.get(KEY, (0, 0))
    more = differing.keys() == {KEY} and isinstance(before, int) and 0 <= before < now
    return before if more and (before == 0 or folder.checkpoint.exists()) else None


def _change(task: Task, before: int) -> str:
    """What has changed beside the number of epochs since the run in the task's folder was trained, as
    the content of the data or of a weights file; empty if nothing has."""
    train = replace(task.config.train, epochs=before)
    shorter = as_recorded(replace(task, config=replace(task.config, train=train)))
    return change_since(shorter, read_record(RunFolder(task.folder)), load_data(task))


def _depends_on_epochs(task: Task, before: int) -> str:
    """Why the first epochs of the task are not those of the run in its folder; empty where they are."""
    if before == 0:
        return ""
    train, now = task.config.train, task.config.train.epochs
    known = f"trained for {before} epochs, and {now} are asked for now"
    n = len(load_data(task).train)
    size = n if train.batch_size == "full" else min(train.batch_size, n)
    steps = math.ceil(n / size) * train.replay
    name = registry.name_and_options("schedules", train.schedule)[0]
    rates = [
        _learning_rates(replace(task.config.train, epochs=epochs), steps, before, task.base)
        for epochs in (before, now)
    ]
    if rates[0] != rates[1]:
        return (
            f"{known}, but the schedule {name} spreads over all epochs, so that {before} epochs of it are "
            f"not the first {before} of {now}"
        )
    objective = task.plan.objective
    if train.swa:
        return f"{known}, but the weights are averaged over the epochs behind a share (swa) of all"
    if objective.all_options.get("ramp"):
        return f"{known}, but the radius of its objective rises over a share (`ramp`) of all epochs"
    name = registry.name_and_options("objectives", train.objective)[0]
    source = inspect.getmodule(objective.function) or objective.function
    if ":" in name and "progress" in inspect.getsource(source):
        return f"{known}, but {name} uses `step.progress`, the share of all epochs that is done"
    return ""


def _learning_rates(train: Any, steps_per_epoch: int, epochs: int, base: Path) -> tuple[list[float], Any]:
    """The learning rate before each update of the first `epochs`, and the schedule's state after them."""
    model = nn.Sequential(OrderedDict(net=nn.Linear(2, 2, bias=False)))
    optimizer = build_optimizer(train, list(model.parameters()), model, base)
    schedule = build_schedule(train, optimizer, steps_per_epoch, base)
    rates = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the optimizer does not step here
        for _ in range(epochs * math.ceil(steps_per_epoch / train.accumulate)):
            rates.append(float(optimizer.param_groups[0]["lr"]))
            schedule.step()
    return rates, schedule.state_dict()


def _ways_out(task: Task, before: int) -> str:
    """What to do instead, with the command where data and model have names."""
    weights = {"weights": {"file": str(task.folder / "model.safetensors")}}
    more = task.config.train.epochs - before
    fresh = "to train all epochs from the start: --out ELSEWHERE, or delete the folder"
    if task.data is not None or task.module is not None:
        return (
            f"{fresh}; to go on from its weights: out= and name= of a new run, and run.model() as the model"
        )
    name, options = registry.name_and_options("models", task.config.model)
    values = [task.config.data, {name: {**options, **weights}}, task.config.train.schedule]
    data, model, schedule = map(_quoted, values)
    return (
        f"{fresh}; to train {more} epochs more from its weights, with a schedule of their own: "
        f"stresslens train {data} {model} train.epochs={more} train.schedule={schedule} --name longer, "
        "with its other settings added"
    )


def _quoted(value: Any) -> str:
    """A value as a word of a command."""
    return shlex.quote(yaml_text(value, on_one_line=True))


def _prepared(run: Path) -> Path:
    return run.with_name(f".{run.name}.longer")


def _go_on(task: Task, before: int) -> str:
    """Makes the new run beside its parent, and moves it into its place when it is complete."""
    folder, fresh = RunFolder(task.folder), _prepared(task.folder)
    now = task.config.train.epochs
    with folder.locked():
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir()
        for name in ("checkpoint.pt", "metrics.jsonl", "timings.jsonl"):
            if (folder.path / name).exists():
                shutil.copyfile(folder.path / name, fresh / name)
        record = read_record(folder)
        if before:  # else the training begins now, and how it is computed is decided for it
            config = yaml.safe_load(folder.config.read_text(encoding="utf-8"))
            config["train"]["epochs"] = now
            text = yaml_text(config)
            write_bytes(fresh / "config.yaml", text.encode())
        place = place_aside(task.folder, f"epochs-{before}")
        parent = ParentRun(
            folder=str(place.relative_to(task.folder.parent)),
            epochs=before,
            fingerprint=record.fingerprint,
            reads_of_test=record.reads_of_test,
        )
        write_json(fresh / PARENT, parent.as_json())
        task.folder.rename(place)
        fresh.rename(task.folder)
    what = f"{task.run} seed {task.seed}: goes on from {before} epochs to {now}"
    return f"{what}; the run before is kept as {place}"
