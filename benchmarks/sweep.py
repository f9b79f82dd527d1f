"""The eleven LeNet settings of lab F on MNIST: stresslens, two at a time, against the notebook's
loop, one after another.

    python benchmarks/sweep.py          # 5 epochs of 54,000 images for each setting, three ways
    python benchmarks/sweep.py quick    # 1 epoch of 5,400 images

stresslens carries the settings out as a sweep (`settings:` listed, the best by validation alone
tested, the report written); its time is the whole command's, processes and all. The notebook trains
the same nets in one process, looks at validation after every epoch as the labs did, and tests the
best once: with the labs' DataLoader and ToTensor, and on float32 tensors in memory, the strongest
plain loop. Prints ratios of one measurement each (n = 11 trainings), and the test accuracies with
their intervals.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from training import InMemory, Pictures, notebook_loop

from stresslens.core.data import Data, Split
from stresslens.core.types import Estimate
from stresslens.metrics.intervals import wilson
from stresslens.plugins.datasets.mnist import mnist
from stresslens.plugins.models.lenet import lenet

SETTINGS: list[tuple[str, int, float, dict[str, float]]] = [
    ("adam", 32, 1e-3, {}),
    ("adam", 64, 1e-4, {}),
    ("adam", 64, 2e-3, {}),
    ("sgd", 128, 1e-3, {"momentum": 0.9}),
    ("sgd", 128, 5e-3, {"momentum": 0.5}),
    ("rmsprop", 256, 1e-3, {}),
    ("rmsprop", 256, 5e-4, {}),
    ("adam", 512, 1e-3, {}),
    ("adam", 64, 1e-3, {"weight_decay": 1e-4}),
    ("adam", 128, 1e-4, {"weight_decay": 1e-3}),
    ("sgd", 128, 1e-3, {"momentum": 0.9, "weight_decay": 1e-4}),
]
"""Optimizer, batch size, learning rate and the optimizer's options, in the order of the lab's table."""
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "sgd": torch.optim.SGD,
    "rmsprop": torch.optim.RMSprop,
}
VALIDATION = 6000


Loader = Callable[[Split, int], Any]
"""A split and a batch size to batches of images in [0, 1] and labels, shuffled anew each time."""


def as_published(split: Split, size: int) -> Any:
    return DataLoader(Pictures(split.images[:, 0], split.labels.tolist()), size, shuffle=True)


def in_memory(split: Split, size: int) -> Any:
    return InMemory(split.floats(split.images), split.labels, size)


class Centred(nn.Module):
    """Mean .5 and deviation .5, as the labs normalise."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * x - 1


def notebook(data: Data, epochs: int, loader: Loader) -> tuple[float, Estimate]:
    """Seconds for all settings, one after another, and the test accuracy of the best by validation."""
    assert data.validation is not None
    assert data.test is not None
    start = time.perf_counter()
    best, chosen = -1.0, None
    for name, size, lr, options in SETTINGS:
        torch.manual_seed(0)
        net = nn.Sequential(Centred(), lenet(data.shape, len(data.classes)))
        optimizer = OPTIMIZERS[name](net.parameters(), lr=lr, **options)
        batches = loader(data.train, size)
        for _ in range(epochs):
            notebook_loop(net, batches, sys.maxsize, optimizer)
            accuracy = right(net, data.validation, loader) / len(data.validation)
            if accuracy > best:
                best, chosen = accuracy, {key: value.clone() for key, value in net.state_dict().items()}
    assert chosen is not None
    net.load_state_dict(chosen)
    tested = wilson(right(net, data.test, loader), len(data.test))
    return time.perf_counter() - start, tested


def right(net: nn.Module, split: Split, loader: Loader) -> int:
    net.eval()
    with torch.no_grad():
        return sum(int((net(x).argmax(1) == y).sum()) for x, y in loader(split, 1000))


def settings() -> list[dict[str, Any]]:
    """The same as trials of a sweep."""
    listed = []
    for name, size, lr, options in SETTINGS:
        plugin = "momentum" if "momentum" in options else name
        optimizer = {plugin: options} if options else plugin
        listed.append({"train.optimizer": optimizer, "train.batch_size": size, "train.lr": lr})
    return listed


def ours(epochs: int, subset: int | None, folder: Path) -> tuple[float, Estimate]:
    """Seconds of the whole command with --jobs 2, and the test accuracy of the best by validation."""
    study = {
        "data": {"mnist": {"validation": VALIDATION, **({"subset": subset} if subset else {})}},
        "model": "lenet",
        "input": {"normalize": {"mean": [0.5], "std": [0.5]}},
        "train": {"epochs": epochs},
        "sweep": {"settings": settings()},
    }
    (folder / "eleven.yaml").write_text(json.dumps(study))
    command = [sys.executable, "-m", "stresslens", "run", "eleven.yaml", "--jobs", "2", "-q"]
    start = time.perf_counter()
    subprocess.run(command, cwd=folder, check=True, env={**os.environ, "PYTHONWARNINGS": "ignore"})
    seconds = time.perf_counter() - start
    record = json.loads((folder / "runs" / "eleven" / "run" / "seed-0" / "record.json").read_text())
    return seconds, Estimate.from_json(record["scores"]["test"]["accuracy"])


def main(quick: bool) -> None:
    epochs, subset = (1, 5400) if quick else (5, None)
    data = mnist(validation=VALIDATION, subset=subset)
    with tempfile.TemporaryDirectory() as folder:
        times = {"stresslens --jobs 2": ours(epochs, subset, Path(folder))}
    times["notebook (DataLoader, ToTensor)"] = notebook(data, epochs, as_published)
    times["notebook, float32 in memory"] = notebook(data, epochs, in_memory)
    whole = times["stresslens --jobs 2"][0]
    print(
        f"\n{len(SETTINGS)} settings, {epochs} epochs of {len(data.train):,} images, {os.cpu_count()} cores"
    )
    for name, (seconds, accuracy) in times.items():
        tested = (
            f"{100 * accuracy.value:.2f} % ({100 * accuracy.low:.2f} to {100 * accuracy.high:.2f}) of "
            f"{accuracy.n:,} test images"
        )
        print(
            f"  {name:32} {seconds:7.1f} s   {seconds / whole:5.2f} × stresslens   best by validation: "
            f"{tested}"
        )


if __name__ == "__main__":
    main("quick" in sys.argv[1:])
