"""What was left to choose (device, precision, threads, memory format) is decided once: by the run's
folder, else by measuring."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import torch
import yaml
from torch import nn

from stresslens.config import registry, study_file
from stresslens.config.old_words import in_todays_words
from stresslens.config.schema import COMPUTE_KEYS, EVALUATION_KEYS, RESUME_SAFE_KEYS
from stresslens.config.validation import objective_of
from stresslens.core import devices, layer_table, layers
from stresslens.core.devices import ComputeConfig, Precision
from stresslens.core.draws import Draws
from stresslens.core.errors import ConfigError
from stresslens.core.files import UnreadableRun
from stresslens.core.fingerprint import fingerprint_of
from stresslens.core.run_folder import RunFolder
from stresslens.core.types import Step
from stresslens.training.best_epoch import selection_rules
from stresslens.training.setup import build_model, initial_weights_of
from stresslens.training.task import Task, configuration, load_data

HEAVY = 2e11
"""Operations of a timed step, about a second of a processor's."""
FEWEST = 8
"""Images of a timed step at least, so that it is laid out like a batch."""


def autotune(tasks: list[Task], *, most_threads: int, precision: Precision | None = None) -> list[Task]:
    """The tasks with device, precision, threads and memory format decided: as a run's folder says,
    else by measuring.

    Runs of one study are compared with each other, so one precision serves them all: that given,
    which earlier ones have, or bfloat16 where it is the faster for every model that is left to
    choose, else float32. Raises ConfigError, naming every folder, where another configuration lies.
    """
    tasks = [task if _steps(task) else _with_one_way(task) for task in tasks]
    settled = adopt_from_folder(tasks)
    timings = {place: _timed(task, most_threads) for place, task in enumerate(tasks) if place not in settled}
    choosing = [
        seconds for seconds in timings.values() if any(way.precision == "bfloat16" for way in seconds)
    ]
    free = [seconds for place, seconds in timings.items() if tasks[place].config.train.precision == "auto"]
    precisions = {
        settled[p].config.train.precision for p in settled if tasks[p].config.train.precision == "auto"
    }
    common: Precision | None = precision or (precisions.pop() if len(precisions) == 1 else None)  # type: ignore[assignment]
    if common is None and free:
        wins = len(choosing) == len(free) and all(
            devices.fastest(seconds).precision == "bfloat16" for seconds in choosing
        )
        common = "bfloat16" if wins else "float32"
    for place, seconds in timings.items():
        asked = tasks[place].config.train.precision
        settled[place] = _with_arithmetic(
            tasks[place], devices.fastest(seconds, common if asked == "auto" else None)
        )
    return [settled[place] for place in range(len(tasks))]


def adopt_from_folder(tasks: list[Task]) -> dict[int, Task]:
    """Of the tasks that have a folder, each by its place, as the folder settled it. Raises as
    `settle` does."""
    kept: dict[int, Task] = {}
    conflicts: list[str] = []
    for place, task in enumerate(tasks):
        folder = RunFolder(task.folder)
        if folder.config.exists() and folder.begun:
            kept[place], differing = _adopt(task, folder)
            if differing:
                conflicts.append(f"{task.folder} holds another configuration ({differing})")
    if conflicts:
        ways = "keep both: --out ELSEWHERE, or another name for the study or the run; replace it: delete the folder"
        raise ConfigError("\n".join(conflicts) + f"\n{ways}")
    return kept


def precision_of(asked: list[Task], settled: list[Task]) -> Precision | None:
    """The precision that was chosen for the tasks that left it open, if there were any."""
    chosen = {after.config.train.precision for before, after in zip(asked, settled) if _chooses(before)}
    return chosen.pop() if len(chosen) == 1 else None  # type: ignore[return-value]


def _chooses(task: Task) -> bool:
    return task.config.train.precision == "auto" and _steps(task)


def _steps(task: Task) -> bool:
    """Whether it has training steps, which an estimator, a linear probe and `epochs: 0` have not."""
    return task.config.estimator is None and task.config.train.epochs > 0 and not task.config.train.probed


def _with_arithmetic(task: Task, way: ComputeConfig) -> Task:
    return replace(task, config=replace(task.config, train=replace(task.config.train, **asdict(way))))


def _with_one_way(task: Task) -> Task:
    """A task without training steps to time, which leaves nothing to choose but the threads."""
    asked = task.config.train
    if task.config.estimator is not None:
        train = replace(asked, device="cpu", precision="float32", memory_format="contiguous")
    else:
        precision: Precision = "float32" if asked.precision == "auto" else asked.precision
        train = replace(
            asked,
            device=str(devices.pick_device(asked.device)),
            precision=precision,
            memory_format="contiguous",
        )
    return replace(task, config=replace(task.config, train=train))


def compute_config(task: Task) -> ComputeConfig:
    train = task.config.train
    return ComputeConfig(train.device, train.precision, train.threads, train.memory_format)  # type: ignore[arg-type]


def _adopt(task: Task, folder: RunFolder) -> tuple[Task, str]:
    """The task as its folder settled it, and in what else the two differ."""
    try:
        kept = in_todays_words(yaml.safe_load(folder.config.read_text(encoding="utf-8")))
        settled = {key: kept["train"][key] for key in COMPUTE_KEYS}
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        raise UnreadableRun(
            f"{folder.config} cannot be read ({error}); delete the folder to start anew"
        ) from error
    asked = task.config.train
    task = replace(
        task,
        config=replace(
            task.config,
            train=replace(asked, **{k: v for k, v in settled.items() if getattr(asked, k) == "auto"}),
        ),
    )
    mine = configuration(task)
    differing = [
        f"{key}: {_at(kept, key)!r} there, {_at(mine, key)!r} now"
        for key in sorted(_leaves(kept) | _leaves(mine))
        if _at(kept, key) != _at(mine, key)
        and key.rpartition(".")[2] not in RESUME_SAFE_KEYS
        and key.partition(".")[0] not in EVALUATION_KEYS
    ]
    return task, "; ".join(differing)


def _leaves(values: Any, prefix: str = "") -> set[str]:
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
    """How many images a timed step is of at most, by the multiply-adds for one, so that no step of
    a large net takes long."""
    return max(FEWEST, int(HEAVY / max(1, 6 * multiply_adds)))


_timings: dict[str, dict[ComputeConfig, float]] = {}


def _timed(task: Task, most_threads: int) -> dict[ComputeConfig, float]:
    """Seconds of a training step of this recipe's model in each way worth trying; recipes with
    equal steps are timed once."""
    train = task.config.train
    if not _steps(task):
        threads = most_threads if train.threads == "auto" else train.threads
        return {ComputeConfig(train.device, train.precision, threads, "contiguous"): 0.0}  # type: ignore[arg-type]
    device = devices.pick_device(train.device)
    data = load_data(task)
    of_step = ("batch_size", "loss", "objective", "device", "precision", "threads", "memory_format")
    settings = {key: study_file.as_values(task.config)["train"][key] for key in of_step}
    model_of = study_file.as_values(task.config)["model"]
    key = fingerprint_of(
        [settings, model_of, study_file.as_values(task.config)["input"], data.shape, most_threads]
    )
    if key in _timings and task.module is None:
        return _timings[key]
    selection_rules(train, data, base=task.base)
    origin = initial_weights_of(task)
    if origin is not None and not origin.digest:
        origin.load()  # published weights that cannot be had are told before anything is measured
    with torch.random.fork_rng(devices=[]):
        model = layers.pooled_first(build_model(task, data))
    fixed = None if train.threads == "auto" else train.threads
    ways = devices.candidates(model, device, train.precision, fixed, most_threads)
    if train.memory_format != "auto":
        ways = [
            replace(way, memory_format=train.memory_format)
            for way in ways
            if way.memory_format == "contiguous"
        ]
    if len(ways) == 1:
        return {ways[0]: 0.0}
    objective = registry.resolve("objectives", objective_of(train), base=task.base)
    size = len(data.train) if train.batch_size == "full" else train.batch_size
    if device == "cpu":
        net = model.get_submodule("net")
        size = min(
            size,
            images_to_time(layer_table.layer_table(net, layers.shape_seen(model, data.shape)).multiply_adds),
        )
    rows = data.train.select(torch.arange(min(size, len(data.train)))).to(device)

    def step(trial: nn.Module, way: ComputeConfig) -> None:
        """In the midst of an epoch, an objective's radius at its full size."""
        x, y, index = next(rows.batches(size, dtype=way.dtype))
        with way.autocast():
            inputs = layers.input_layers(trial)(x)
            now = Step(Draws(0, index), 0, 1.0, {}, batches=3)
            loss = objective(trial, x, y, now, trial.get_submodule("net"), inputs)
        if loss.requires_grad:
            loss.backward()
        for parameter in trial.parameters():
            parameter.grad = None

    with torch.random.fork_rng(devices=[]):
        _timings[key] = devices.measure_compute(model, step, ways)
    return _timings[key]
