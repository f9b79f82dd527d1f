"""Whether the passes of a training are compiled, and whether they keep their activations."""

from __future__ import annotations

import json
import math
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from statistics import median

import torch
from torch import nn

from stresslens.config.schema import Train
from stresslens.core import compute_choice
from stresslens.core.copies import copied
from stresslens.core.devices import ComputeConfig, keep_memory, on_threads, total_memory
from stresslens.core.dtypes import as_input
from stresslens.core.errors import ConfigError, Notice
from stresslens.core.kept_choices import ComputeChoice, kept_or_made, measuring_allowed
from stresslens.core.pass_memory import bytes_of_pass
from stresslens.core.pieces import is_out_of_memory
from stresslens.core.types import Shape
from stresslens.training.compiled_net import CompiledNet, why_not_compiled
from stresslens.training.recomputation import Recomputation
from stresslens.training.setup import build_model
from stresslens.training.task import Task, load_data

PAYS = 1.1
"""A compiled step has to be so many times as fast in eight of nine pairs."""
WORTH = 2.0
"""It has to save so many times the seconds of compiling."""
LEAST_SECONDS = 60.0
"""Shorter trainings, by `OPERATIONS_A_SECOND`, are not measured: compiling takes longer."""
OPERATIONS_A_SECOND = {"cpu": 5e10, "cuda": 1e13}
"""Floating-point operations of a thread or of a GPU, about: only to leave out what is hopeless."""
FILLED, DOUBTFUL = 0.8, 0.3
"""Shares of the memory of a device: activations that fill more of it are computed again, and one step
tries it on a GPU where they fill more than the second."""
COPIES = 4
"""Tensors as large as the weights: they, their gradients, and two of the optimizer."""


@dataclass(frozen=True)
class StepSize:
    """What a training step needs: floating-point operations, and bytes at its peak."""

    operations: float
    memory: float

    @classmethod
    def of(cls, model: nn.Module, shape: Shape, batch: int, operations: float) -> StepSize:
        """The step of a model (a net behind its input layers) on a batch of so many images, which the net
        sees in a shape (C, H, W)."""
        net = model.get_submodule("net")
        weights = sum(p.numel() * p.element_size() for p in net.parameters())
        return cls(operations, batch * bytes_of_pass(net, shape, gradient=True) + COPIES * weights)


def with_passes(task: Task, step: StepSize | None) -> Task:
    """The task with `compile` and `recompute` decided, for the other compute settings that it has. Raises
    as `check_passes` does."""
    config, train = task.compute, task.config.train
    if config is None or task.config.estimator is not None or not train.epochs or train.probed:
        return task
    check_passes(train, config.device)
    recompute = train.recompute
    if recompute == "auto":
        recompute = train.compile is not True and step is not None and _memory_is_short(task, config, step)
    compiled = train.compile
    if compiled == "auto":
        compiled = not recompute and step is not None and _compiling_pays(task, config, step)
    return replace(task, compute=replace(config, compile=compiled, recompute=recompute))


def check_passes(train: Train, device: str) -> None:
    """Raises ConfigError where nothing can be compiled on a device though it is asked for, and where
    compiling and computing again both are."""
    if train.compile is True and train.recompute is True:
        raise ConfigError(
            "train.compile and train.recompute: torch's compiler decides itself what it computes again; "
            "take one of the two"
        )
    if train.compile is True and (why := why_not_compiled(device)):
        raise ConfigError(f"train.compile: {why}; or set it to false")


def _memory_is_short(task: Task, config: ComputeConfig, step: StepSize) -> bool:
    """Whether the activations of a batch do not fit into the memory of the device; a Notice says so.

    The whole memory counts, and not what happens to be free. On a GPU one step tries what is in doubt.
    """
    total = total_memory(config.device)
    if total is None or step.memory < DOUBTFUL * total:
        return False
    why = f"a batch needs about {step.memory / 1e9:.1f} GB of the {total / 1e9:.1f} GB of {config.device}"
    if step.memory < FILLED * total:
        if torch.device(config.device).type != "cuda" or _one_step_fits(task, config):
            return False
        why = f"the first batch did not fit into the memory of {config.device}"
    with torch.random.fork_rng(devices=[]):
        net = build_model(task, load_data(task)).get_submodule("net")
    try:
        Recomputation(net)
    except ConfigError:
        return False
    warnings.warn(
        f"{why}; so activations are computed again in the backward pass, which takes about a third longer "
        "(train.recompute: false keeps them)",
        Notice,
        stacklevel=2,
    )
    return True


def _one_step_fits(task: Task, config: ComputeConfig) -> bool:
    """Whether one step of a whole batch has room on the device."""
    try:
        _step(task, config)()
    except (RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            torch.cuda.empty_cache()
            return False
    return True


def _step(task: Task, config: ComputeConfig, most: int | None = None) -> Callable[[], None]:
    """A forward and backward pass of a copy of the task's model on its first training images: a whole
    batch, or at most so many."""
    data, train = load_data(task), task.config.train
    with torch.random.fork_rng(devices=[]):
        model = config.place(copied(build_model(task, data)))
    whole = len(data.train) if train.batch_size == "full" else min(train.batch_size, len(data.train))
    images = data.train.select(torch.arange(whole if most is None else min(most, whole)))
    x = as_input(images.floats(images.images[:]), model)
    y = images.labels.to(x.device)
    passes = CompiledNet(model.get_submodule("net")).active if config.compile else None

    def forward() -> torch.Tensor:
        with config.autocast():
            return nn.functional.cross_entropy(model(x).float(), y)

    def step() -> None:
        if passes is None:
            loss = forward()
        else:
            with passes():
                loss = forward()
        loss.backward()
        for parameter in model.parameters():
            parameter.grad = None

    return step


def _compiling_pays(task: Task, config: ComputeConfig, step: StepSize) -> bool:
    """Whether compiled passes save more than compiling costs, over the whole training. Both are measured
    once, and kept (`kept_choices`)."""
    data, train = load_data(task), task.config.train
    batch = len(data.train) if train.batch_size == "full" else min(train.batch_size, len(data.train))
    steps = math.ceil(len(data.train) / batch) * train.replay * train.epochs
    kind = torch.device(config.device).type
    workers = config.threads if kind == "cpu" else 1
    least = steps * step.operations / OPERATIONS_A_SECOND.get(kind, math.inf) / workers
    if least < LEAST_SECONDS or why_not_compiled(config.device) or not measuring_allowed():
        return False
    most = compute_choice.images_to_time(max(1, round(step.operations / (6 * batch))))
    with torch.random.fork_rng(devices=[]):
        model = build_model(task, data)
    known = {
        "what": "compiling",
        "model": task.config.model if isinstance(task.config.model, str) else json.dumps(task.config.model),
        "shape": list(data.shape),
        "batch": min(batch, most),
        "architecture": compute_choice.architecture_digest(model),
        "computed": {key: value for key, value in config.settings().items() if key != "threads"},
        "machine": compute_choice.machine(config.device),
    }
    made = partial(measured_passes, task, config, most)
    choice = kept_or_made(known, made)
    return choice is not None and pays(
        choice, steps * batch / min(batch, most) / workers, _shapes(task, batch)
    )


def _shapes(task: Task, batch: int) -> int:
    """Sizes of batches of an epoch, each of which is compiled."""
    return 2 if len(load_data(task).train) % batch else 1


def measured_passes(task: Task, config: ComputeConfig, most: int) -> ComputeChoice:
    """A choice for steps of at most so many images. Its gains are those of a compiled step beside the
    same as it is written, its seconds those of a step, and of compiling."""
    keep_memory()
    gains: list[float] = []
    seconds: dict[str, float] = {}
    clock = compute_choice.clock_of(config.device)
    with on_threads(1 if torch.device(config.device).type == "cpu" else torch.get_num_threads()):
        try:
            plain = _step(task, config, most)
            compiled = _step(task, replace(config, compile=True), most)
            plain()
            began = time.perf_counter()
            compiled()
            seconds["compiling"] = round(time.perf_counter() - began, 3)
            began = clock()
            plain()
            seconds["step"] = round(clock() - began, 6)
            gains = compute_choice.gains_in_pairs(plain, compiled, clock, PAYS)
        except Exception:  # of a user's module, or of torch's compiler: it is not compiled
            gains = []
    ratios = {"compiled beside as written": [round(ratio, 3) for ratio in gains]}
    return ComputeChoice({config.precision: config.memory_format}, config.precision, ratios, seconds)


def pays(choice: ComputeChoice, steps: float, shapes: int) -> bool:
    """Whether compiling pays over so many measured steps, for so many shapes of a batch."""
    (ratios,) = choice.gains.values()
    if not compute_choice.clear(ratios, PAYS):
        return False
    saved = steps * choice.seconds["step"] * (1 - 1 / median(ratios))
    return saved > WORTH * shapes * choice.seconds["compiling"]
