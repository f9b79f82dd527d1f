"""Training speed, side by side in one process: the notebook's loop, float32 tensors in memory, and
stresslens.

    python benchmarks/training.py            # everything, about 15 minutes on two cores
    python benchmarks/training.py mnist      # images per second on MNIST
    python benchmarks/training.py digits     # lab A's seven runs, to their own stop
    python benchmarks/training.py overhead   # what the quickstart costs beyond training

Prints ratios with n. The contestants take turns, so that a busy machine slows all of them; the
median of the turns is compared.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader

from stresslens.config import study_file
from stresslens.core import devices
from stresslens.core.run_folder import RunFolder
from stresslens.core.torchvision_compat import torchvision
from stresslens.study import pipeline, stages
from stresslens.training.autotune import autotune, compute_config
from stresslens.training.loop import Training
from stresslens.training.setup import build_model
from stresslens.training.task import Task, load_data

STUDIES = Path(__file__).parents[1] / "studies"
TURNS = 5
STEPS = {64: 150, 512: 20}


def notebook_loop(
    net: nn.Module, loader: Any, steps: int, optimizer: torch.optim.Optimizer | None = None
) -> int:
    """The labs' loop: DataLoader with ToTensor, float32, Adam unless another is given; returns the
    images it trained on."""
    optimizer, criterion = optimizer or torch.optim.Adam(net.parameters(), lr=0.001), nn.CrossEntropyLoss()
    images, running = 0, 0.0
    net.train()
    for step, (x, y) in enumerate(loader):
        if step == steps:
            break
        optimizer.zero_grad()
        loss = criterion(net(x), y)
        loss.backward()
        optimizer.step()
        running += loss.item()
        images += len(y)
    return images


class InMemory:
    """Float32 tensors, shuffled by index: the strongest plain loop."""

    def __init__(self, x: Tensor, y: Tensor, size: int) -> None:
        self.x, self.y, self.size = x, y, size

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.randperm(len(self.x))
        for start in range(0, len(self.x), self.size):
            rows = order[start : start + self.size]
            yield self.x[rows], self.y[rows]


def stresslens_steps(training: Training, steps: int) -> int:
    """The steps of the loop itself (training.fit), stopped after so many."""
    images = 0
    training.model.train()
    for step, batch in enumerate(training.batches()):
        if step == steps:
            break
        loss = training.batch_loss(batch)
        training.backward(loss)
        value, size = training.reduce(loss, batch)
        training.check(value, batch)
        training.optimizer_step()
        training.count(value, size)
        training.after_step()
        images += len(batch.y)
    training.state.step = 0
    return images


def let_memory_go() -> None:
    """glibc's own thresholds, for the peers: what stresslens gains by keeping memory is its own."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if sys.platform == "linux" and mallopt is not None:
        trim_threshold, mmap_threshold = -1, -3  # malloc.h
        mallopt(mmap_threshold, 128 * 1024)
        mallopt(trim_threshold, 128 * 1024)


def in_turns(contestants: dict[str, Callable[[], int]], *, turns: int = TURNS) -> dict[str, float]:
    """Median images per second of each, after one turn to warm up."""
    rates: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(turns + 1):
        for name, run in contestants.items():
            devices.keep_memory() if name.startswith("stresslens") else let_memory_go()
            start = time.perf_counter()
            images = run()
            if turn:
                rates[name].append(images / (time.perf_counter() - start))
    return {name: np.median(values) for name, values in rates.items()}


def task_of(model: Any, size: int, folder: Path, **train: Any) -> Task:
    config = study_file.variant_config_from(
        {
            "data": "mnist",
            "model": model,
            "input": {"normalize": "none"},
            "train": {"batch_size": size, **train},
        },
        STUDIES,
    )
    return autotune(
        [Task("benchmark", "run", 0, config, STUDIES, folder)], most_threads=torch.get_num_threads()
    )[0]


def training_of(task: Task) -> Training:
    data = load_data(task)
    task.folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    training = Training(
        build_model(task, data),
        data,
        task.config.train,
        compute=compute_config(task),
        seed=0,
        folder=RunFolder(task.folder),
        base=STUDIES,
        show=lambda position, epochs, done: None,
    )
    return training


def mnist() -> None:
    folder = Path(tempfile.mkdtemp())
    for model, size in (("simple_cnn", 64), ("simple_cnn", 512), ("lenet", 64)):
        images_per_second(model, size, folder / f"{model}-{size}")


def images_per_second(model: str, size: int, folder: Path) -> None:
    steps = STEPS[size]
    chosen, narrow = (
        task_of(model, size, folder / "auto"),
        task_of(model, size, folder / "float32", precision="float32"),
    )
    data = load_data(chosen)
    loader = DataLoader(Pictures(data.train.images[:, 0], data.train.labels.tolist()), size, shuffle=True)
    memory = InMemory(data.train.floats(data.train.images), data.train.labels, size)
    nets = [build_model(chosen, data).get_submodule("net") for _ in range(2)]
    ours, ours_narrow = training_of(chosen), training_of(narrow)
    rates = in_turns(
        {
            "notebook": lambda: notebook_loop(nets[0], loader, steps),
            "float32 in memory": lambda: notebook_loop(nets[1], memory, steps),
            "stresslens float32": lambda: stresslens_steps(ours_narrow, steps),
            "stresslens": lambda: stresslens_steps(ours, steps),
        }
    )
    way = compute_config(chosen)
    print(
        f"\n{model}, batch {size}, {torch.get_num_threads()} threads; median of n = {TURNS} turns of "
        f"{steps} steps"
    )
    for name, rate in rates.items():
        detail = f"  ({way.precision}, {way.memory_format})" if name == "stresslens" else ""
        ratios = (
            f"{rate / rates['notebook']:5.2f} × notebook   "
            f"{rate / rates['float32 in memory']:5.2f} × in memory"
        )
        print(f"  {name:20} {rate:8.0f} images/s   {ratios}{detail}")


class Pictures(torch.utils.data.Dataset[tuple[Tensor, int]]):
    """What torchvision's MNIST does for each item: an array made a picture, through ToTensor."""

    def __init__(self, images: Tensor, labels: list[int]) -> None:
        self.images, self.labels, self.transform = images, labels, torchvision().transforms.ToTensor()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, place: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.images[place].numpy())), self.labels[place]


def plain_lab_a(task: Task) -> tuple[int, float]:
    """One of lab A's runs in the notebook's own loop: epochs to its stop, and test accuracy."""
    data = load_data(task)
    assert data.test is not None
    torch.manual_seed(task.seed)
    net = build_model(task, data).get_submodule("net")
    x, y = data.train.images.flatten(1), data.train.labels
    squared = task.config.train.loss == "mse"
    target = nn.functional.one_hot(y, 10).float() if squared else y
    criterion: nn.Module = nn.MSELoss() if squared else nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    size = len(x) if task.config.train.batch_size == "full" else int(task.config.train.batch_size)
    before = float("inf")
    epochs = 0
    while epochs < task.config.train.epochs:
        epochs += 1
        for start in range(0, len(x), size):
            optimizer.zero_grad()
            loss = criterion(net(x[start : start + size]), target[start : start + size])
            loss.backward()
            optimizer.step()
        last = loss.item()
        if abs(last - before) < 1e-6:
            break
        before = last
    with torch.no_grad():
        right = net(data.test.images.flatten(1)).argmax(1) == data.test.labels
    return epochs, float(right.float().mean())


def digits() -> None:
    study = study_file.read_study(STUDIES / "digits-losses-as-published.yaml")
    folder = Path(tempfile.mkdtemp())
    tasks = autotune(
        [task for task in pipeline.tasks_of(study, folder) if task.seed == 0],
        most_threads=torch.get_num_threads(),
    )
    total_plain = total_ours = 0.0
    print("\nlab A's seven runs, one seed, each to its own stop (n = 1 each)")
    for task in tasks:
        let_memory_go()
        start = time.perf_counter()
        epochs, accuracy = plain_lab_a(task)
        plain = time.perf_counter() - start
        start = time.perf_counter()
        record = stages.carry_out(task)
        ours = time.perf_counter() - start
        total_plain, total_ours = total_plain + plain, total_ours + ours
        mine = record.scores["test"]["accuracy"].value
        print(
            f"  {task.run:16} plain {plain:6.1f} s, {epochs:6} epochs, {accuracy:.4f}   "
            f"stresslens {ours:6.1f} s, {record.training.epochs:6} epochs, {mine:.4f}   "
            f"ratio {plain / ours:4.2f}"
        )
    ratio = total_plain / total_ours
    print(
        f"  all seven: plain {total_plain:.1f} s, stresslens {total_ours:.1f} s (files and evaluation "
        f"included), ratio {ratio:.2f}"
    )


def overhead() -> None:
    """Everything of the quickstart that is not a training step, start of the process included."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    spent = []
    for turn in range(4):  # the first one writes the bytecode, as an installation does, and does not count
        with tempfile.TemporaryDirectory() as out:
            command = [
                sys.executable,
                "-m",
                "stresslens",
                "run",
                str(STUDIES / "quickstart.yaml"),
                "--out",
                out,
            ]
            start = time.perf_counter()
            subprocess.run([*command, "-q"], check=True, env=environment, stdout=subprocess.DEVNULL)
            wall = time.perf_counter() - start
            records = [json.loads(file.read_text()) for file in Path(out).rglob("record.json")]
            steps = sum(record["training"]["seconds"] for record in records)
            spent += [(wall - steps, wall, steps)] if turn else []
    beyond, wall, steps = sorted(spent)[1]
    print(
        f"\nquickstart: {wall:.1f} s, of which {steps:.1f} s in training steps and {beyond:.1f} s beyond "
        "them (median of n = 3)"
    )


def main(parts: list[str]) -> None:
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    known = {"mnist": mnist, "digits": digits, "overhead": overhead}
    for part in parts or list(known):
        known[part]()


if __name__ == "__main__":
    parts = sys.argv[1:]
    main(parts)
