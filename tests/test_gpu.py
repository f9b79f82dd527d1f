"""Training, attacks, explanations, resuming, export and several processes on a GPU. Without one, the same
tests run on the CPU alone."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from loop_step import loop_step
from several import each, in_group
from torch import nn

import stresslens as sl
from stresslens.core.data import Data
from stresslens.core.distributed import ALONE, ProcessGroup
from stresslens.core.read_ahead import read_ahead
from stresslens.core.run_folder import RunFolder
from stresslens.training.autotune import compute_config
from stresslens.training.distributed import begin_training, train_on_all_ranks
from stresslens.training.loop import Training, fit
from stresslens.training.setup import build_model
from stresslens.training.task import Task

Make = Callable[..., Task]
CUDA = pytest.param("cuda", marks=pytest.mark.gpu)
NET = {"simple_cnn": {"channels": 4, "hidden": 16, "batch_norm": True}}

on_each_device = pytest.mark.parametrize("device", ["cpu", CUDA])


@pytest.fixture
def _exact() -> Iterator[None]:
    """Convolutions and products in float32 throughout."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def started(task: Task, state: dict[str, Any] | None = None) -> Training:
    """A training as a run begins it, in this process."""
    assert task.data is not None
    task.folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(task.seed)
    folder = RunFolder(task.folder)
    show = lambda state, epochs, done: None  # noqa: E731
    return begin_training(task, task.data, build_model(task, task.data), state, folder, show)


@pytest.mark.usefixtures("_exact")
@pytest.mark.parametrize("train", [{"clip": 0.1}, {"recompute": True}, {"accumulate": 2, "ema": 0.9}])
@on_each_device
def test_a_training_is_that_of_the_cpu(
    device: str, train: dict[str, Any], task_of: Make, tmp_path: Path
) -> None:
    found = []
    for name in ("cpu", device):
        task = task_of(NET, folder=tmp_path / f"on-{name}", device=name, select="last", **train)
        training = started(task)
        fit(training)
        assert {p.device.type for p in training.parameters} == {name}
        assert (training.late is not None) == (name == "cuda")
        found.append(training.chosen())
    for name, value in found[0].items():
        torch.testing.assert_close(value, found[1][name].cpu(), rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
@on_each_device
def test_every_precision_resumes_with_the_same_bits(
    device: str, precision: str, task_of: Make, tmp_path: Path
) -> None:
    """Of an MLP, whose sums have a fixed order on a GPU too."""
    settings = {"device": device, "precision": precision, "batch_size": 50, "epochs": 4, "select": "last"}
    whole, stopped = (task_of("mlp", folder=tmp_path / name, **settings) for name in ("whole", "stopped"))
    training = started(whole)
    fit(training)
    first = started(stopped)
    first.until = 2
    fit(first)
    state, _ = RunFolder(stopped.folder).load_checkpoint()
    resumed = started(stopped, state)
    fit(resumed)
    assert all(value.equal(resumed.chosen()[name]) for name, value in training.chosen().items())


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_no_step_waits_for_the_gpu(precision: str, task_of: Make) -> None:
    training = started(task_of(NET, device="cuda", precision=precision, batch_size=20, clip=0.1))
    batches = list(training.batches())

    for batch in batches[:2]:  # the first plans its kernels
        loop_step(training, batch)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for batch in batches[2:4]:
            loop_step(training, batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@on_each_device
def test_batches_that_are_read_ahead_are_the_same(device: str, small: Data) -> None:
    train = small.train.to(device)
    ahead = read_ahead(train.batches(25, seed=1), device)
    for mine, other in zip(train.batches(25, seed=1), ahead, strict=True):
        for one, same in zip(mine, other, strict=True):
            assert one.device.type == same.device.type == device
            assert one.equal(same)


def line(device: str) -> tuple[nn.Module, torch.Tensor, torch.Tensor, np.ndarray]:
    """A linear model of two classes, images, their labels, and the exact radii in linf."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    x = 0.3 + 0.4 * torch.rand(12, 1, 4, 4)
    with torch.no_grad():
        logits = model(x)
    weight = model[1].weight.detach()
    margins = (logits[:, 0] - logits[:, 1]).abs() / (weight[0] - weight[1]).abs().sum()
    return model.to(device), x, logits.argmax(1), margins.numpy()


@pytest.mark.usefixtures("_exact")
@on_each_device
def test_an_attack_finds_the_exact_radii(device: str) -> None:
    model, x, y, exact = line(device)
    radii = [0.002 * k for k in range(1, 60)]
    found = sl.attack(model, x, y, radii=radii, protocol=["fgsm"], audit=False).minimal_radius
    for mine, radius in zip(found, exact):
        assert mine == min((r for r in radii if r >= radius - 1e-6), default=np.inf)


@pytest.mark.usefixtures("_exact")
@pytest.mark.parametrize("explainer", ["saliency", "integrated_gradients", "gradcam", "occlusion"])
@on_each_device
def test_maps_are_those_of_the_cpu(device: str, explainer: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(64, 3)
    ).eval()
    x = torch.rand(2, 1, 8, 8)
    expected = sl.explain(model, x, explainer, check=False).maps
    found = sl.explain(model.to(device), x, explainer, check=False).maps
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)


@on_each_device
def test_a_run_is_evaluated_and_exported(device: str, small: Data, tmp_path: Path) -> None:
    run = sl.train("linear", small, epochs=2, device=device, out=tmp_path / "runs", threads=1)
    assert run.config["train"]["device"] == device
    file = sl.export(run, "safetensors", out=tmp_path / "exported").file
    exported = next(iter(file.glob("*.safetensors"))) if file.is_dir() else file
    kept = safetensors.torch.load_file(RunFolder(run.folder).weights)
    for name, value in safetensors.torch.load_file(exported).items():
        assert value.equal(kept[name]) if name in kept else True
    x = small.test.floats(small.test.images[:5]) if small.test is not None else torch.empty(0)
    with np.load(RunFolder(run.folder).predictions("test")) as arrays:
        with torch.no_grad():
            logits = run.model()(x)
        np.testing.assert_allclose(logits.cpu().numpy(), arrays["scores"][:5], rtol=1e-3, atol=1e-4)


def trained_together(group: ProcessGroup, task: Task) -> dict[str, torch.Tensor]:
    assert task.data is not None
    device = compute_config(task).device
    group.take_device(device)
    torch.manual_seed(task.seed)
    folder = task.folder / str(group.place.rank)
    folder.mkdir(parents=True)
    training = Training(
        group.normed(compute_config(task).place(build_model(task, task.data))),
        task.data.to(device),
        task.config.train,
        compute=compute_config(task),
        seed=task.seed,
        folder=RunFolder(folder),
        base=task.base,
        show=lambda state, epochs, done: None,
        group=group,
    )
    train_on_all_ranks(training)
    return {name: value.cpu() for name, value in training.chosen().items()}


@pytest.mark.slow
@on_each_device
def test_two_processes_train_as_one(device: str, task_of: Make, tmp_path: Path) -> None:
    """By nccl on two GPUs, where batch norm is shared too; by gloo on the CPU."""
    if device == "cuda" and torch.cuda.device_count() < 2:
        pytest.skip("there is one GPU")
    net = NET if device == "cuda" else "mlp"
    task = task_of(net, device=device, batch_size=40, select="last", optimizer="momentum")
    alone = trained_together(ALONE, replace(task, folder=tmp_path / "alone"))
    first, second = each(2, in_group, trained_together, replace(task, folder=tmp_path / "together"))
    for name, value in alone.items():
        assert first[name].equal(second[name])
        torch.testing.assert_close(value, first[name], rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_the_benchmark_says_that_there_is_no_gpu() -> None:
    program = Path(__file__).parents[1] / "benchmarks" / "gpu.py"
    done = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("there is no CUDA device here, so nothing is measured")
