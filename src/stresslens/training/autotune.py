"""Autotunes device, precision, threads and memory format, or reuses what the run folder recorded."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
import yaml
from torch import nn

from stresslens.config.old_words import in_todays_words
from stresslens.config.schema import COMPUTE_KEYS, EVALUATION_KEYS, RESUME_SAFE_KEYS
from stresslens.core import devices, layer_table, layers
from stresslens.core.devices import ComputeConfig, Precision
from stresslens.core.draws import Draws
from stresslens.core.errors import ConfigError
from stresslens.core.files import UnreadableRun
from stresslens.core.fingerprint import fingerprint_of
from stresslens.core.pool_order import pool_first
from stresslens.core.run_folder import RunFolder
from stresslens.core.types import Step
from stresslens.training.best_epoch import selection_rules
from stresslens.training.first_batch import TRIED, check_first_batch
from stresslens.training.setup import build_model, images_to_check
from stresslens.training.task import Task, load_data

HEAVY = 2e11
"""Floating-point operations of a timed step, at most: about a second on a CPU."""
FEWEST = 8
"""Images of a timed step, at least, so that its memory layout is that of a batch."""


def autotune(tasks: list[Task], *, most_threads: int, precision: Precision | None = None) -> list[Task]:
    """The tasks with device, precision, threads and memory format resolved: as the run folder
    recorded them, else by timing training steps.

    The runs of a study are compared with each other, so all that leave the precision open get the
    same one: `precision` if it is given, else that of runs in their folders, else bfloat16 where it
    is faster for every model, else float32. Raises ConfigError, naming every folder that holds
    another configuration.
    """
    tasks = [task if _has_steps(task) else _without_timing(task) for task in tasks]
    resolved = adopt_from_folder(tasks)
    timings = {index: _timed(task, most_threads) for index, task in enumerate(tasks) if index not in resolved}
    auto = [index for index, task in enumerate(tasks) if task.config.train.precision == "auto"]
    recorded = {compute_config(resolved[index]).precision for index in auto if index in resolved}
    common: Precision | None = precision
    if common is None and len(recorded) == 1:
        common = recorded.pop()
    if common is None:
        with_bfloat16 = [s for s in timings.values() if any(c.precision == "bfloat16" for c in s)]
        of_all = len(with_bfloat16) == len([index for index in auto if index in timings])
        wins = of_all and all(devices.fastest(s).precision == "bfloat16" for s in with_bfloat16)
        common = "bfloat16" if wins else "float32"
    for index, seconds in timings.items():
        fastest = devices.fastest(seconds, common if index in auto else None)
        resolved[index] = replace(tasks[index], compute=fastest)
    return [resolved[index] for index in range(len(tasks))]


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
                conflicts.append(f"{task.folder} holds another configuration ({differing})")
    if conflicts:
        remedy = (
            "keep both: --out ELSEWHERE, or another name for the study or the run; "
            "replace it: delete the folder"
        )
        raise ConfigError("\n".join([*conflicts, remedy]))
    return adopted


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


def _without_timing(task: Task) -> Task:
    """A task without training steps to time, with everything but the threads resolved."""
    train = task.config.train
    if task.config.estimator is not None:
        train = replace(train, device="cpu", precision="float32", memory_format="contiguous")
    else:
        precision: Precision = "float32" if train.precision == "auto" else train.precision
        device = str(devices.pick_device(train.device))
        train = replace(train, device=device, precision=precision, memory_format="contiguous")
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
    ):
        raise ValueError("device, precision, threads and memory format are not decided yet (autotune)")
    return ComputeConfig(train.device, train.precision, train.threads, train.memory_format)


def _adopt(task: Task, folder: RunFolder) -> tuple[Task, str]:
    """The task with the compute settings that its folder recorded, and in words every other setting
    in which the two differ (empty: none)."""
    try:
        recorded = in_todays_words(yaml.safe_load(folder.config.read_text(encoding="utf-8")))
        compute = {key: recorded["train"][key] for key in COMPUTE_KEYS}
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        raise UnreadableRun(
            f"{folder.config} cannot be read ({error}); delete the folder to start anew"
        ) from error
    train = task.config.train
    asked = {key: getattr(train, key) for key in COMPUTE_KEYS}
    in_force = {key: compute[key] if value == "auto" else value for key, value in asked.items()}
    task = replace(task, compute=ComputeConfig(**in_force))
    current = task.plan.configuration
    differing = [
        f"{key}: {_at(recorded, key)!r} there, {_at(current, key)!r} now"
        for key in sorted(_leaves(recorded) | _leaves(current))
        if _at(recorded, key) != _at(current, key)
        and key.rpartition(".")[2] not in RESUME_SAFE_KEYS
        and key.partition(".")[0] not in EVALUATION_KEYS
    ]
    return task, "; ".join(differing)


def _leaves(values: Any, prefix: str = "") -> set[str]:
    """The dotted keys of all values that are not nested any further."""
    if not isinstance(values, dict) or not values:
        return {prefix} if prefix else set()
    return set().union(
        *(_leaves(value, f"{prefix}.{key}" if prefix else str(key)) for key, value in values.items())
    )


def _at(values: Any, dotted: str) -> Any:
    for key in dotted.split("."):
        values = values.get(key) if isinstance(values, dict) else None
    return values


def images_to_time(multiply_adds: int) -> int:
    """The most images of a timed step, from the multiply-adds of one image, so that no step of a
    large net takes long."""
    return max(FEWEST, int(HEAVY / max(1, 6 * multiply_adds)))


_timings: dict[str, dict[ComputeConfig, float]] = {}


def _timed(task: Task, most_threads: int) -> dict[ComputeConfig, float]:
    """Seconds of a training step in each compute configuration that is worth trying; variants with
    equal steps are timed once."""
    train = task.config.train
    if not _has_steps(task):
        threads = most_threads if train.threads == "auto" else train.threads
        precision: Precision = "float32" if train.precision == "auto" else train.precision
        return {ComputeConfig(train.device, precision, threads, "contiguous"): 0.0}
    device = devices.pick_device(train.device)
    data = load_data(task)
    step_keys = ("batch_size", "loss", "objective", "device", "precision", "threads", "memory_format")
    values = task.plan.settings
    step_settings = {key: values["train"][key] for key in step_keys}
    key = fingerprint_of([step_settings, values["model"], values["input"], data.shape, most_threads])
    if key in _timings and task.module is None:
        return _timings[key]
    selection_rules(train, data, base=task.base)
    origin = task.plan.initial_weights
    if origin is not None and not origin.digest:
        origin.load()  # fails before anything is timed if the published weights are not available
    with torch.random.fork_rng(devices=[]):
        model: nn.Module = build_model(task, data)
        pool_first(model)
    fixed_threads = None if train.threads == "auto" else train.threads
    candidates = devices.candidates(model, device, train.precision, fixed_threads, most_threads)
    model = candidates[0].place(model)
    check_first_batch(model, train, data)
    if train.memory_format != "auto":
        candidates = [
            replace(candidate, memory_format=train.memory_format)
            for candidate in candidates
            if candidate.memory_format == "contiguous"
        ]
    if len(candidates) == 1:
        return {candidates[0]: 0.0}
    objective = task.plan.objective
    size = len(data.train) if train.batch_size == "full" else train.batch_size
    if device == "cpu":
        table = layer_table.layer_table(model.get_submodule("net"), layers.shape_seen(model, data.shape))
        size = min(size, images_to_time(table.multiply_adds))
    images = data.train.select(torch.arange(min(max(size, TRIED), len(data.train)))).to(device)

    def train_step(candidate_model: nn.Module, candidate: ComputeConfig) -> None:
        """A step in the middle of an epoch, with `progress` 1: an objective's radius is at its full size."""
        x, y, places = next(images.batches(len(images), dtype=candidate.dtype))
        with candidate.autocast():
            inputs = layers.input_layers(candidate_model)(x)
            step = Step(Draws(0, places), 0, 1.0, {}, batches=3)
            net = candidate_model.get_submodule("net")
            loss = objective(model=candidate_model, x=x, y=y, step=step, net=net, inputs=inputs)
        if loss.requires_grad:
            loss.backward()
        for parameter in candidate_model.parameters():
            parameter.grad = None

    with torch.random.fork_rng(devices=[]):
        _timings[key] = devices.measure_compute(model, train_step, candidates, images_to_check(model, data))
    return _timings[key]
