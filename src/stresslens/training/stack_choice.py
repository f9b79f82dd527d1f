"""Which runs train in one program (`train.stack`): those for which it is asked, or clearly faster."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from stresslens.config.schema import FineTune
from stresslens.core import compute_choice, distributed
from stresslens.core.devices import on_threads
from stresslens.core.errors import ConfigError
from stresslens.core.fingerprint import fingerprint_of
from stresslens.core.kept_choices import ComputeChoice, kept_or_made, measuring_allowed
from stresslens.core.run_folder import RunFolder
from stresslens.plugins.objectives.supervised import supervised
from stresslens.training.loop import Training
from stresslens.training.setup import build_model
from stresslens.training.stack import Stack
from stresslens.training.stacked_net import without_stacked_form
from stresslens.training.task import Task, load_data

OF_A_STEP = ("batch_size", "replay", "shuffle", "loss", "objective", "augment", "balance", "accumulate")
"""The settings of `train` that all runs of a stack share. The others are each run's own."""
MOST_MEASURED = 8
"""Runs in the stack that is measured, at most."""
STEPS = 4
"""Training steps that are timed at once."""
TIMED_LR = 1e-12
"""The learning rate of steps that are timed."""


def settled(tasks: list[Task], *, begun: Sequence[bool]) -> list[Task]:
    """The tasks with `train.stack` decided. `auto` is what runs that have `begun` recorded, else whether
    a stack is clearly faster than one run after the other, by a measurement that is kept.

    Raises ConfigError where a task asks for a stack that cannot be.
    """
    if all(task.config.train.stack is False for task in tasks):
        return tasks
    keys = [_key(task) if task.config.train.stack is not False else "" for task in tasks]
    decided: dict[str, bool] = {}
    for task, key, recorded in zip(tasks, keys, begun):
        if key and recorded:
            decided.setdefault(key, bool(task.config.train.stack))
    result = []
    for task, key in zip(tasks, keys):
        stack = task.config.train.stack
        check_stack(task)
        if stack == "auto":
            if key not in decided:
                decided[key] = _gains([each for each, its in zip(tasks, keys) if its == key])
            train = replace(task.config.train, stack=decided[key])
            task = replace(task, config=replace(task.config, train=train))
        result.append(task)
    return result


def stackable(tasks: Sequence[Task]) -> list[list[Task]]:
    """The tasks that may train in one program, in their order; a task that trains alone is alone in its
    list."""
    found: dict[str, list[Task]] = {}
    for place, task in enumerate(tasks):
        together = task.config.train.stack is True and not (task.trackers or task.config.track or task.until)
        found.setdefault(_key(task) if together else str(place), []).append(task)
    return [*found.values()]


def _key(task: Task) -> str:
    """A fingerprint of what the runs of a stack share: data, model, the settings of a step."""
    values, data = task.plan.settings, load_data(task)
    train = {name: values["train"].get(name) for name in OF_A_STEP}
    model = [values.get("model"), values.get("input"), str(task.base), id(task.module)]
    return fingerprint_of([data.fingerprint, model, train, str(task.compute)])


def check_stack(task: Task) -> None:
    """Raises ConfigError for a task that asks for a stack and cannot train in one."""
    if task.config.train.stack is True and (why := _refusal(task)):
        raise ConfigError(
            f"train.stack: {task.run} cannot train in one program with others: {why}; set it to auto or false"
        )


def _refusal(task: Task) -> str:
    """Why a task cannot train in a stack, in words; empty if it can."""
    train = task.config.train
    if task.config.estimator is not None or not train.epochs or train.probed:
        return "it has no training steps"
    if distributed.group().place.world > 1:
        return "several processes already share each of its steps"
    if train.fine_tune not in (None, FineTune()):
        return "train.fine_tune changes what is trained"
    precision = train.precision if task.compute is None else task.compute.precision
    if precision not in ("auto", "float32", "float64"):
        return f"its precision is {precision}, and a stack computes in float32 or float64"
    if task.compute is not None and (task.compute.compile or task.compute.recompute):
        return "its passes are compiled or computed again (train.compile, train.recompute)"
    if task.plan.objective.function is not supervised:
        return "its objective is not supervised"
    with torch.random.fork_rng(devices=[]):
        net = build_model(task, load_data(task)).get_submodule("net")
    layers = without_stacked_form(net)
    return f"its net has layers that cannot be computed for several runs at once ({layers})" if layers else ""


def _gains(tasks: Sequence[Task]) -> bool:
    """Whether these runs train clearly faster in a stack. Fixed rules say no: where nothing is measured,
    they train one by one."""
    if len(tasks) < 2 or not measuring_allowed() or any(_refusal(task) for task in tasks):
        return False
    first, data, measured = tasks[0], load_data(tasks[0]), tasks[:MOST_MEASURED]
    compute = first.compute
    assert compute is not None
    with torch.random.fork_rng(devices=[]):
        architecture = compute_choice.architecture_digest(build_model(first, data))
    train = first.plan.settings["train"]
    about = {
        "what": "training in one program",
        "model": str(first.config.model),
        "shape": list(data.shape),
        "batch": train["batch_size"],
        "runs": len(measured),
        "step": {name: train.get(name) for name in (*OF_A_STEP, "optimizer", "clip", "ema")},
        "precision": compute.precision,
        "architecture": architecture,
        "machine": compute_choice.machine(compute.device),
    }

    def measure() -> ComputeChoice:
        with tempfile.TemporaryDirectory() as folder, torch.random.fork_rng(devices=[]):
            one_by_one, stack = (
                [_training(task, Path(folder) / str(way) / str(n), way) for n, task in enumerate(measured)]
                for way in (False, True)
            )
            with on_threads(compute.threads):
                ratios = compute_choice.gains_in_pairs(
                    _steps_alone(one_by_one),
                    _steps_together(Stack(stack)),
                    compute_choice.clock_of(compute.device),
                )
        rounded = [round(ratio, 3) for ratio in ratios]
        format_of = {compute.precision: compute.memory_format}
        gains = {"in one program beside one by one": rounded}
        return ComputeChoice(format_of, compute.precision, gains, stack=compute_choice.clear(ratios))

    try:
        kept = kept_or_made(about, measure)
    except Exception:  # a user's loss may do anything; the training itself says it
        return False
    return kept is not None and kept.stack


def _training(task: Task, folder: Path, stack: bool) -> Training:
    """A training whose steps are timed, as often as it takes: its weights hardly move, so that it does not
    diverge, and its schedule has no end."""
    data, compute = load_data(task), task.compute
    assert compute is not None
    return Training(
        compute.place(build_model(task, data)),
        data.to(compute.device),
        replace(task.config.train, lr=TIMED_LR, schedule="constant", stack=stack),
        compute=compute,
        seed=task.seed,
        folder=RunFolder(folder),
        base=task.base,
        show=lambda state, epochs, done: None,
    )


def _steps_alone(trainings: Sequence[Training]) -> Callable[[], None]:
    """A few steps of the loop of each training."""

    def steps() -> None:
        for t in trainings:
            t.fine_tuning.begin(0)
            for batch in itertools.islice(t.batches(), STEPS):
                loss = t.batch_loss(batch)
                t.backward(loss)
                value, _ = t.reduce(loss, batch)
                t.check(value, batch)
                t.optimizer_step()
                t.after_step()
            t.state.step = 0

    return steps


def _steps_together(s: Stack) -> Callable[[], None]:
    """The same steps of all trainings at once."""

    def steps() -> None:
        s.begin_epoch()
        for batch in itertools.islice(s.batches(), STEPS):
            losses = s.losses(batch)
            s.backward(losses)
            s.check(losses, batch)
            s.optimizer_step()
            s.after_step()
        for t in s.trainings:
            t.state.step = 0

    return steps
