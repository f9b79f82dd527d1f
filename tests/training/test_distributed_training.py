"""One training by two or three processes is the training by one; and whatever happens to one of
them, nobody hangs."""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from several import carry_out, each, in_group, start
from torch import Tensor, nn
from trainings import training_of

from stresslens.core.data import Data
from stresslens.core.distributed import ALONE, ProcessGroup
from stresslens.core.errors import Stopped
from stresslens.core.files import read_json
from stresslens.core.run_folder import RunFolder
from stresslens.study import stages
from stresslens.training.loop import Training
from stresslens.training.task import Task

Make = Callable[..., Task]

MLP = {"mlp": {"widths": [12]}}
RECIPES: dict[str, tuple[Any, dict[str, Any]]] = {
    "supervised": (MLP, {}),
    "convolutions": ({"simple_cnn": {"channels": 3, "hidden": 8}}, {"memory_format": "channels_last"}),
    "gradient by hand": (MLP, {"objective": "by_hand", "accumulate": 2}),
    "class weights": (MLP, {"balance": "weights", "loss": "mse"}),
    "balanced sampling": (MLP, {"balance": "sampling"}),
    "augmented": (
        "linear",
        {"augment": ["flip", {"crop": {"padding": 1}}, {"cutout": {"size": 2}}, "mixup"]},
    ),
    "accumulated, clipped, averaged": (
        MLP,
        {"accumulate": 3, "clip": 0.2, "ema": 0.9, "optimizer": {"momentum": {}}},
    ),
    "file order": (MLP, {"shuffle": False}),
    "adversarial": (MLP, {"objective": {"adversarial": {"eps": 0.1}}}),
    "free": (MLP, {"objective": {"free": {"eps": 0.1}}, "replay": 2}),
    "trades": (MLP, {"objective": {"trades": {"eps": 0.1, "steps": 2}}}),
    "noisy": (MLP, {"objective": "noisy"}),
}
STEPS = 20

Weights = list[Tensor]


def stepped(group: ProcessGroup, tasks: dict[str, Task]) -> dict[str, tuple[Weights, Weights, float]]:
    """Of each task the first step's gradients, and weights and sum of losses after 20 steps."""
    return {name: _stepped(group, task) for name, task in tasks.items()}


def _stepped(group: ProcessGroup, task: Task) -> tuple[Weights, Weights, float]:
    training = training_of(task, group=group)
    training.model.train()
    first: Weights = []
    losses = 0.0
    steps = itertools.count(1)
    while True:
        for batch in training.batches():
            loss = training.batch_loss(batch)
            training.backward(loss)
            value, images = training.reduce(loss, batch)
            training.check(value, batch)
            first = first or [p.grad.clone() for p in training.parameters if p.grad is not None]
            training.optimizer_step()
            training.count(value, images)
            losses += training.state.last_loss
            if next(steps) == STEPS:
                return first, [p.detach().clone() for p in training.parameters], losses
        training.state.epoch += 1
        training.state.step = 0


@pytest.fixture(scope="module")
def stepping(
    small: Data, tmp_path_factory: pytest.TempPathFactory
) -> dict[int, dict[str, tuple[Weights, Weights, float]]]:
    """By the number of processes. Batches of 25 of 101 images: the last has one, which leaves the
    others of three without any."""
    from stresslens.config import study_file

    data = replace(small, train=small.train.select(range(101)))
    folder = tmp_path_factory.mktemp("stepping")
    common = {"batch_size": 25, "optimizer": "sgd", "lr": 0.1, "epochs": 9, "device": "cpu"}
    compute = {"precision": "float64", "threads": 1, "memory_format": "contiguous"}
    tasks = {}
    for name, (model, train) in RECIPES.items():
        config = study_file.variant_config_from({"model": model, "train": common | compute | train}, folder)
        tasks[name] = Task("tests", name, 0, config, folder, folder, data)
    found = {1: stepped(ALONE, tasks)}
    for count in (2, 3):
        of_first, *others = each(count, in_group, stepped, tasks)
        for other in others:  # the same bits in every process
            assert all(
                a.equal(b) for name in tasks for a, b in zip(of_first[name][1], other[name][1], strict=True)
            )
        found[count] = of_first
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("count", [2, 3])
def test_gradients_losses_and_weights_are_one_processes(stepping: Any, name: str, count: int) -> None:
    for alone, shared in zip(stepping[1][name][:2], stepping[count][name][:2], strict=True):
        for mine, ours in zip(alone, shared, strict=True):
            assert mine.abs().max() > 0
            assert torch.allclose(mine, ours, rtol=0, atol=1e-12)
    assert stepping[count][name][2] == pytest.approx(stepping[1][name][2], abs=1e-11)


def weights(task: Task) -> dict[str, Tensor]:
    return safetensors.torch.load_file(task.folder / "model.safetensors")


def lines(task: Task) -> list[dict[str, Any]]:
    return RunFolder(task.folder).read_lines(RunFolder(task.folder).metrics)


def same_lines(one: Task, other: Task) -> None:
    for mine, ours in zip(lines(one), lines(other), strict=True):
        for split in ("validation", "train"):
            assert mine.pop(split) == pytest.approx(ours.pop(split), abs=1e-12)
        figures = (
            mine.pop("objective", {}),
            ours.pop("objective", {}),
        )  # the guard's are of the first process's images
        assert figures[0].keys() == figures[1].keys()
        assert mine == pytest.approx(ours, abs=1e-12)


OPTIONS: dict[str, Any] = {
    "batch_size": 22,
    "optimizer": "momentum",
    "lr": 0.02,
    "precision": "float64",
    "watch": ["train", "validation"],
}


@pytest.mark.slow
def test_a_run_leaves_the_same_files(task_of: Make, tmp_path: Path) -> None:
    options = OPTIONS | {"epochs": 8, "select": "loss", "objective": {"adversarial": {"eps": 0.05}}}
    alone = task_of(MLP, folder=tmp_path / "alone" / "seed-0", **options)
    robust = task_of("linear", folder=tmp_path / "robust" / "seed-0", **options | {"select": "robust"})
    stages.carry_out(alone)
    stages.carry_out(robust)
    shared, shared_robust = (
        replace(t, folder=tmp_path / "shared" / t.folder.parent.name / "seed-0") for t in (alone, robust)
    )
    assert start(3, carry_out, shared, shared_robust).codes() == [0, 0, 0]
    for one, other in ((alone, shared), (robust, shared_robust)):
        same_lines(one, other)
        assert all(
            torch.allclose(value, weights(other)[name], rtol=0, atol=1e-6)
            for name, value in weights(one).items()
        )
        records = [read_json(task.folder / "record.json") for task in (one, other)]
        assert records[0].keys() == records[1].keys()
        for part in ("chosen_epoch", "steps", "stopped", "epochs", "select"):
            assert records[0]["training"][part] == records[1]["training"][part]
        for split in ("validation", "test"):
            mine, ours = (RunFolder(task.folder).load_predictions(split) for task in (one, other))
            assert ours["index"].tolist() == list(range(60))
            assert np.abs(mine["scores"] - ours["scores"]).max() < 1e-6
    environment = read_json(shared.folder / "environment.json")
    assert (environment["processes"], environment["backend"]) == (3, "gloo")
    assert read_json(alone.folder / "environment.json")["processes"] == 1


def logged(task: Task, least: int) -> None:
    """Waits until so many epochs are logged."""
    until = time.monotonic() + 60
    while not (task.folder / "metrics.jsonl").exists() or len(lines(task)) < least:
        assert time.monotonic() < until, "no line of metrics"
        time.sleep(0.005)


LONG: dict[str, Any] = OPTIONS | {
    "epochs": 24,
    "augment": ["flip"],
    "ema": 0.9,
    "accumulate": 2,
    "schedule": "cosine",
}


@pytest.mark.slow
def test_two_then_one_then_three_processes_end_at_the_same_weights(
    task_of: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    objective = {"free": {"eps": 0.1}}
    whole = task_of(MLP, folder=tmp_path / "whole" / "seed-0", objective=objective, replay=2, **LONG)
    stages.carry_out(whole)
    task = replace(whole, folder=tmp_path / "parts" / "seed-0")
    two = start(2, carry_out, task)
    logged(task, 3)
    os.kill(two.processes[1].pid or 0, signal.SIGTERM)  # one hears it, both stop at the same batch
    assert two.codes() == [143, 143]
    assert read_json(task.folder / "record.json")["status"] == "stopped"
    assert len(lines(task)) < 24

    keep, calls = Training.after_step, itertools.count()

    def interrupted(self: Training) -> None:
        if next(calls) == 30:
            signal.raise_signal(signal.SIGINT)
        keep(self)

    with monkeypatch.context() as patch:
        patch.setattr(Training, "after_step", interrupted)
        with pytest.raises(Stopped):
            stages.carry_out(task)
    assert start(3, carry_out, task).codes() == [0, 0, 0]
    same_lines(whole, task)
    assert all(
        torch.allclose(value, weights(task)[name], rtol=0, atol=1e-6)
        for name, value in weights(whole).items()
    )
    states = [RunFolder(each_task.folder).load_checkpoint()[0] for each_task in (whole, task)]
    mine, ours = (state["carried"]["perturbation"] for state in states if state)
    assert torch.allclose(mine, ours, rtol=0, atol=1e-12)
    resumed = read_json(task.folder / "record.json")["resumed_from"]
    assert [(place["processes"], place.get("backend")) for place in resumed] == [(1, None), (3, "gloo")]


class Dropping(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 10))


@pytest.mark.slow
def test_dropout_goes_on_with_the_same_bits(task_of: Make, tmp_path: Path) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = Dropping()
    whole = replace(task_of("linear", folder=tmp_path / "whole" / "seed-0", **LONG), module=module)
    parts = replace(whole, folder=tmp_path / "parts" / "seed-0")
    assert start(2, carry_out, whole).codes() == [0, 0]
    interrupted = start(2, carry_out, parts)
    logged(parts, 3)
    os.kill(interrupted.processes[0].pid or 0, signal.SIGINT)
    assert interrupted.codes() == [130, 130]
    assert len(lines(parts)) < 24
    assert start(2, carry_out, parts).codes() == [0, 0]
    assert lines(parts) == lines(whole)
    assert (parts.folder / "model.safetensors").read_bytes() == (
        whole.folder / "model.safetensors"
    ).read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("later", [0, 0.1, 0.3])
def test_a_signal_while_a_training_begins_leaves_nobody_waiting(
    task_of: Make, tmp_path: Path, later: float
) -> None:
    task = task_of("linear", folder=tmp_path / "run" / "seed-0", **LONG | {"epochs": 4000})
    began = start(2, carry_out, task)
    until = time.monotonic() + 60
    while not (task.folder / "record.json").exists():
        assert time.monotonic() < until
    time.sleep(later)
    for process in began.processes:
        os.kill(process.pid or 0, signal.SIGTERM)
    assert set(began.codes()) <= {
        143,
        -signal.SIGTERM,
    }  # the latter where it came before the process could listen
