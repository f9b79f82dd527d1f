"""Autotunes device, precision, threads and memory format, or reuses what the run folder recorded."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from stresslens.config.old_words import in_todays_words
from stresslens.config.run_config import read_run_config
from stresslens.config.schema import (
    COMPUTE_KEYS,
    EVALUATION_KEYS,
    LATER_COMPUTE_KEYS,
    LATER_SETTINGS,
    RESUME_SAFE_KEYS,
    Train,
)
from stresslens.core import compute_choice, devices, layer_table, layers
from stresslens.core.copies import CHECKED, copied
from stresslens.core.cropped_kernels import crop_kernels
from stresslens.core.data import Data, Split
from stresslens.core.devices import ComputeConfig, MemoryFormat, Precision
from stresslens.core.draws import Draws
from stresslens.core.dtypes import as_input
from stresslens.core.errors import ConfigError
from stresslens.core.files import UnreadableRun
from stresslens.core.fingerprint import fingerprint_of
from stresslens.core.kept_choices import ComputeChoice
from stresslens.core.pool_order import pool_first
from stresslens.core.run_folder import RunFolder
from stresslens.core.types import Step
from stresslens.training.best_epoch import selection_rules
from stresslens.training.first_batch import TRIED, check_first_batch
from stresslens.training.pass_choice import StepSize, with_passes
from stresslens.training.setup import build_model, images_to_check
from stresslens.training.stack_choice import settled
from stresslens.training.task import Task, load_data

STEP_KEYS = ("batch_size", "loss", "objective", "device", "precision", "threads", "memory_format")
"""The settings of `train` that say what a training step computes."""


@dataclass(frozen=True)
class Suggestion:
    """How a task is computed where nothing else is asked for."""

    device: str
    threads: int
    choice: ComputeChoice
    step: StepSize | None = None
    """Of a training step; None where there is none, or a small one."""

    def config(self, precision: Precision | None) -> ComputeConfig:
        """In this precision, if the model can be computed in it; None: in the fastest."""
        wanted = precision or self.choice.precision
        usual = next(iter(self.choice.formats.values()))
        return ComputeConfig(self.device, wanted, self.threads, self.choice.formats.get(wanted, usual))


def autotune(tasks: list[Task], *, most_threads: int, precision: Precision | None = None) -> list[Task]:
    """The tasks with device, precision, threads and memory format resolved: as the run folder
    recorded them, else by fixed rules and by the choices that are kept for this machine
    (`compute_choice`).

    The runs of a study are compared with each other, so all that leave the precision open get the
    same one: `precision` if it is given, else that of runs in their folders, else one of 16 bits where
    it is clearly faster for every model, else float32. Raises ConfigError, naming every folder that
    holds another configuration.
    """
    tasks = [task if _has_steps(task) else _without_precision(task) for task in tasks]
    resolved = adopt_from_folder(tasks)
    suggested = {i: _suggestion(task, most_threads) for i, task in enumerate(tasks) if i not in resolved}
    auto = [index for index, task in enumerate(tasks) if task.config.train.precision == "auto"]
    recorded = {compute_config(resolved[index]).precision for index in auto if index in resolved}
    common: Precision | None = precision
    if common is None and len(recorded) == 1:
        common = recorded.pop()
    if common is None:
        fastest = {suggested[index].choice.precision for index in auto if index in suggested}
        common = fastest.pop() if len(fastest) == 1 else "float32"
    for index, suggestion in suggested.items():
        config = suggestion.config(common if index in auto else None)
        resolved[index] = with_passes(replace(tasks[index], compute=config), suggestion.step)
    in_order = [resolved[index] for index in range(len(tasks))]
    return settled(in_order, begun=[index not in suggested for index in range(len(tasks))])


def adopt_from_folder(tasks: list[Task]) -> dict[int, Task]:
    """The tasks that have a run folder, by their index, with what the folder recorded. Raises as
    `autotune` does."""
    adopted: dict[int, Task] = {}
    conflicts: list[str] = []
    for index, task in enumerate(tasks):
        folder = RunFolder(task.folder)
        if folder.config.exists() and folder.begun:
            adopted[index], differing = _adopt(task, folder)
            if differing:
                changes = (f"{key}: {there!r} there, {now!r} now" for key, (there, now) in differing.items())
                conflicts.append(f"{task.folder} holds another configuration ({'; '.join(changes)})")
    if conflicts:
        remedy = (
            "keep both: --out ELSEWHERE, or another name for the study or the run; "
            "replace it: delete the folder"
        )
        raise ConfigError("\n".join([*conflicts, remedy]))
    return adopted


def holds_run(task: Task) -> bool:
    """Whether the task's folder holds a run of the same settings. Raises UnreadableRun."""
    folder = RunFolder(task.folder)
    return folder.config.exists() and folder.begun and not _adopt(task, folder)[1]


def precision_of(tasks: list[Task], resolved: list[Task]) -> Precision | None:
    """The precision that was chosen for those of the tasks that left it open; None without any."""
    chosen = {
        compute_config(after).precision
        for before, after in zip(tasks, resolved)
        if before.config.train.precision == "auto" and _has_steps(before)
    }
    return chosen.pop() if len(chosen) == 1 else None


def _has_steps(task: Task) -> bool:
    """Whether there are training steps. An estimator, a linear probe and `epochs: 0` have none."""
    return task.config.estimator is None and task.config.train.epochs > 0 and not task.config.train.probed


def _without_precision(task: Task) -> Task:
    """A task without training steps, with device and precision resolved."""
    train = task.config.train
    if task.config.estimator is not None:
        train = replace(train, device="cpu", precision="float32", memory_format="contiguous")
    else:
        precision: Precision = "float32" if train.precision == "auto" else train.precision
        train = replace(train, device=str(devices.pick_device(train.device)), precision=precision)
    train = replace(train, compile=False, recompute=False)
    return replace(task, config=replace(task.config, train=train))


def compute_config(task: Task) -> ComputeConfig:
    """How a task is computed: as `autotune` decided, else as its configuration says.

    Raises ValueError if the configuration leaves something open.
    """
    if task.compute is not None:
        return task.compute
    train = task.config.train
    if (
        train.device == "auto"
        or train.precision == "auto"
        or train.threads == "auto"
        or train.memory_format == "auto"
        or train.compile == "auto"
    ):
        raise ValueError("device, precision, threads and memory format are not decided yet (autotune)")
    passes = train.compile, train.recompute is True
    return ComputeConfig(train.device, train.precision, train.threads, train.memory_format, *passes)


def recorded_differences(task: Task) -> dict[str, tuple[Any, Any]]:
    """The settings in which a task differs from the run in its folder: dotted key → (there, now)."""
    return _adopt(task, RunFolder(task.folder))[1]


def as_recorded(task: Task) -> Task:
    """The task with the compute settings of the run in its folder."""
    return _adopt(task, RunFolder(task.folder))[0]


def recorded_compute(folder: RunFolder) -> dict[str, Any]:
    """The compute settings of the run in a folder."""
    return _compute_of(_recorded(folder))


def _compute_of(recorded: dict[str, Any]) -> dict[str, Any]:
    train = dict.fromkeys(LATER_COMPUTE_KEYS, False) | recorded["train"]
    return {key: train[key] for key in COMPUTE_KEYS}


def _recorded(folder: RunFolder) -> dict[str, Any]:
    """The configuration of the run in a folder. Raises UnreadableRun."""
    try:
        recorded = in_todays_words(read_run_config(folder.config))
        TypeAdapter(Train).validate_json(json.dumps(_compute_of(recorded)), strict=True)
        return recorded
    except (UnreadableRun, ValidationError, KeyError, TypeError, AttributeError) as error:
        raise UnreadableRun(
            f"{folder.config} cannot be read ({error}); delete the folder to start anew"
        ) from error


def _adopt(task: Task, folder: RunFolder) -> tuple[Task, dict[str, tuple[Any, Any]]]:
    """The task with the compute settings that its folder recorded, and every other setting in which
    the two differ: dotted key → (there, now)."""
    recorded = _recorded(folder)
    compute = _compute_of(recorded)
    train = task.config.train
    asked = {key: getattr(train, key) for key in COMPUTE_KEYS}
    in_force = {key: compute[key] if value == "auto" else value for key, value in asked.items()}
    if train.stack == "auto":
        train = replace(train, stack=recorded["train"].get("stack", False))
        task = replace(task, config=replace(task.config, train=train))
    task = replace(task, compute=ComputeConfig(**in_force))
    current = task.plan.configuration
    differing = {
        key: (_at(recorded, key), _at(current, key))
        for key in sorted(_leaves(recorded) | _leaves(current))
        if _at(recorded, key) != _at(current, key)
        and key.rpartition(".")[2] not in RESUME_SAFE_KEYS
        and key.partition(".")[0] not in EVALUATION_KEYS
    }
    return task, differing


def _leaves(values: Any, prefix: str = "") -> set[str]:
    """The dotted keys of all values that are not nested any further."""
    if not isinstance(values, dict) or not values:
        return {prefix} if prefix else set()
    return set().union(
        *(_leaves(value, f"{prefix}.{key}" if prefix else str(key)) for key, value in values.items())
    )


def _at(values: Any, dotted: str) -> Any:
    """The value at a dotted key. One that earlier versions did not have has its default."""
    path = tuple(dotted.split("."))
    for key in path:
        if not isinstance(values, dict) or key not in values:
            return False if path[-1] in LATER_COMPUTE_KEYS else LATER_SETTINGS.get(path)
        values = values[key]
    return values


_suggestions: dict[str, Suggestion] = {}
"""Of the tasks of this process; runs that differ in nothing that matters here share one."""


def _suggestion(task: Task, most_threads: int) -> Suggestion:
    """The compute settings of a task without a run folder. What is asked for is kept."""
    train = task.config.train
    if task.config.estimator is not None:
        threads = most_threads if train.threads == "auto" else train.threads
        return Suggestion("cpu", threads, ComputeChoice({"float32": "contiguous"}, "float32"))
    data, values = load_data(task), task.plan.settings
    steps = {key: values["train"][key] for key in STEP_KEYS} if _has_steps(task) else train.threads
    key = fingerprint_of([steps, values["model"], values["input"], data.shape, most_threads])
    if key not in _suggestions or task.module is not None:
        _suggestions[key] = _new_suggestion(task, data, most_threads)
    return _suggestions[key]


def _new_suggestion(task: Task, data: Data, most_threads: int) -> Suggestion:
    train = task.config.train
    device = devices.pick_device(train.device)
    selection_rules(train, data, base=task.base)
    origin = task.plan.initial_weights
    if origin is not None and not origin.digest:
        origin.load()  # fails before anything is timed if the published weights are not available
    with torch.random.fork_rng(devices=[]):
        model: nn.Module = build_model(task, data)
        pool_first(model)
        precision: Precision = "float32" if train.precision == "auto" else train.precision
        model = ComputeConfig(device, precision, torch.get_num_threads(), "contiguous").place(model)
        if _has_steps(task):
            check_first_batch(model, train, data)
        x = images_to_check(model, data)
        shape = layers.shape_seen(model, data.shape)
        table = layer_table.layer_table(model.get_submodule("net"), shape)
        size = len(data.train) if train.batch_size == "full" else min(train.batch_size, len(data.train))
        crop_kernels(model, x)
        batch = size
        operations = 6.0 * table.multiply_adds * size if _has_steps(task) else 0.0
        precisions: list[Precision] = ["float32"] if train.precision == "auto" else [train.precision]
        if (
            train.precision == "auto"
            and operations >= compute_choice.MEASURED_FROM
            and (narrow := compute_choice.narrow_precision(device)) is not None
            and _takes(narrow, task, data, model, device)
        ):
            precisions.append(narrow)
        asked = None if train.memory_format == "auto" else [train.memory_format]
        possible = compute_choice.possible_ways(model, x, device, precisions, asked)
        size = max(TRIED, min(size, compute_choice.images_to_time(table.multiply_adds)))
        images = data.train.select(torch.arange(size))
        choice = compute_choice.choose(
            model,
            possible,
            partial(_train_step, model, images, device),
            operations=operations,
            device=device,
            about={"what": "training", "model": _name(task), "shape": list(data.shape), "batch": size},
        )
    threads = most_threads
    if train.threads != "auto":
        threads = train.threads
    elif device == "cpu" and _has_steps(task):
        threads = compute_choice.threads_for(operations, most_threads)
    needs = operations >= compute_choice.MEASURED_FROM or train.compile == "auto"
    step = StepSize.of(model, shape, batch, operations) if _has_steps(task) and needs else None
    return Suggestion(device, threads, choice, step)


def _name(task: Task) -> str:
    """What a kept choice calls the model of a task."""
    return task.config.model if isinstance(task.config.model, str) else json.dumps(task.config.model)


def _takes(precision: Precision, task: Task, data: Data, model: nn.Module, device: str) -> bool:
    """Whether the task's objective can be computed in a precision of 16 bits on a few training images."""
    config = ComputeConfig(device, precision, torch.get_num_threads(), "contiguous")
    trial = config.place(copied(model))
    images = data.train.select(torch.arange(min(CHECKED, len(data.train)))).to(device)
    x, y, places = next(images.batches(CHECKED))
    step = Step(Draws(0, places), 0, 1.0, {}, batches=3)
    try:
        with config.autocast():
            inputs = layers.input_layers(trial)(x)
            net = trial.get_submodule("net")
            loss = task.plan.objective(
                model=trial, x=x, y=y, step=step, net=net, inputs=inputs, teacher=trial
            )
        if loss.requires_grad:
            loss.backward()
        elif precision == "float16":
            return False  # it writes its gradients itself, and no loss can be scaled
    except (RuntimeError, TypeError, NotImplementedError):  # a user's objective may do anything
        return False
    return True


def _train_step(
    model: nn.Module, images: Split, device: str, precision: Precision, memory_format: MemoryFormat
) -> Callable[[], None]:
    """A step on a copy of the model: forward and backward pass of the first training images."""
    config = ComputeConfig(device, precision, torch.get_num_threads(), memory_format)
    trial = config.place(copied(model))
    x = as_input(images.floats(images.images[:]), trial)

    def step() -> None:
        with config.autocast():
            outputs = [v for v in tree_leaves(trial(x)) if isinstance(v, Tensor) and v.requires_grad]
        torch.stack([output.float().square().mean() for output in outputs]).sum().backward()
        for parameter in trial.parameters():
            parameter.grad = None

    return step
