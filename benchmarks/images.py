"""A folder of images: starting and training on it, beside torchvision's ImageFolder and a
DataLoader, in turns in one process.

    python benchmarks/images.py FOLDER          # a folder per class, or train/ and test/ with them;
all pictures of one size

The first start decodes every file into a cache of its own, which is removed again; the second opens
it. Ratios are of medians.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import ConcatDataset, DataLoader

from stresslens.core.data import Data
from stresslens.core.devices import keep_memory
from stresslens.core.image_files import Frame, decode, files_below, quietly, read_image
from stresslens.core.torchvision_compat import torchvision
from stresslens.plugins.datasets.folder import folder
from stresslens.plugins.models.simple_cnn import simple_cnn


def seconds(do: Callable[[], object]) -> float:
    start = time.perf_counter()
    do()
    return time.perf_counter() - start


def pictures(path: Path) -> ConcatDataset[tuple[torch.Tensor, int]]:
    """As a notebook would: ImageFolder and ToTensor, over each part that there is."""
    parts = [part for part in ("train", "val", "test") if (path / part).is_dir()] or ["."]
    return ConcatDataset(
        [
            torchvision().datasets.ImageFolder(path / part, transform=torchvision().transforms.ToTensor())
            for part in parts
        ]
    )


def first_start(path: Path) -> tuple[float, float]:
    """Seconds of a first and a second start."""
    with tempfile.TemporaryDirectory() as cache:
        os.environ["XDG_CACHE_HOME"] = cache
        first = seconds(lambda: folder(path=str(path)).fingerprint)
        second = seconds(lambda: folder(path=str(path)).fingerprint)
    return first, second


def decoding_alone(path: Path, most: int = 5000) -> float:
    """Seconds that reading and decoding every file takes one process: what two of them cannot be
    quicker than half of."""
    files = sorted(entry.path for entry in files_below(str(path)))
    some = files[:: max(1, len(files) // most)]
    with quietly():
        return (
            seconds(lambda: [decode(read_image(file), Frame(3, None)) for file in some])
            * len(files)
            / len(some)
        )


def epoch_from_files(
    dataset: ConcatDataset[tuple[torch.Tensor, int]], size: int, workers: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    yield from DataLoader(dataset, size, shuffle=True, num_workers=workers)


def epoch_from_cache(data: Data, size: int, epoch: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    for split in data.splits.values():
        for batch in split.batches(size, seed=0, epoch=epoch):
            yield batch.x, batch.y


def train(batches: Iterator[tuple[torch.Tensor, torch.Tensor]], net: nn.Module, most: int) -> float:
    """Images a second of training steps, the batches included."""
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    images, start = 0, time.perf_counter()
    for x, y in batches:
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()
        images += len(y)
        if images >= most:
            break
    return images / (time.perf_counter() - start)


def feed(batches: Iterator[tuple[torch.Tensor, torch.Tensor]], most: int) -> float:
    images, start = 0, time.perf_counter()
    for _, y in batches:
        images += len(y)
        if images >= most:
            break
    return images / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("path", type=Path)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--size", type=int, default=128, help="images a batch")
    parser.add_argument("--images", type=int, default=20_000, help="images a turn of training")
    given = parser.parse_args()
    keep_memory()
    dataset = pictures(given.path)
    cache = tempfile.mkdtemp()

    starts: dict[str, list[float]] = {
        "ImageFolder, one pass": [],
        "first start": [],
        "second start": [],
        "decoding alone": [],
    }
    for _ in range(given.turns):
        starts["ImageFolder, one pass"].append(seconds(lambda: [None for _ in dataset]))
        first, second = first_start(given.path)
        starts["first start"].append(first)
        starts["second start"].append(second)
        starts["decoding alone"].append(decoding_alone(given.path))
    mid = {name: np.median(values) for name, values in starts.items()}
    print(f"{len(dataset):,} files, {os.cpu_count()} cores; medians of n = {given.turns} turns")
    for name, value in mid.items():
        print(f"  {name:24} {value:6.2f} s   ({', '.join(f'{v:.2f}' for v in starts[name])})")
    bound = mid["ImageFolder, one pass"] / (mid["decoding alone"] / (os.cpu_count() or 1))
    ratio = mid["ImageFolder, one pass"] / mid["first start"]
    print(f"  ImageFolder / first start: {ratio:.1f}; if nothing but decoding took time: {bound:.1f}")

    os.environ["XDG_CACHE_HOME"] = cache
    data = folder(path=str(given.path))
    shape, classes = data.shape, len(data.classes)
    kinds: dict[str, Callable[[Callable[[], Iterator[tuple[torch.Tensor, torch.Tensor]]]], float]] = {
        "batches alone": lambda batches: feed(batches(), given.images),
        "training simple_cnn": lambda batches: train(
            batches(), simple_cnn(shape, classes, channels=8, hidden=64), given.images
        ),
    }
    for kind, rate_of in kinds.items():
        rates: dict[str, list[float]] = {"DataLoader": [], "DataLoader, 2 workers": [], "cache": []}
        for turn in range(given.turns):
            rates["DataLoader"].append(rate_of(lambda: epoch_from_files(dataset, given.size, 0)))
            rates["DataLoader, 2 workers"].append(rate_of(lambda: epoch_from_files(dataset, given.size, 2)))
            rates["cache"].append(rate_of(lambda turn=turn: epoch_from_cache(data, given.size, turn)))  # type: ignore[misc]
        middle = {name: np.median(values) for name, values in rates.items()}
        print(
            f"{kind}, batches of {given.size}, images a second; medians of n = {given.turns} turns of "
            f"{given.images:,} images"
        )
        for name, value in middle.items():
            print(f"  {name:24} {value:9,.0f}   cache / this: {middle['cache'] / value:.1f}")
    shutil.rmtree(cache)


if __name__ == "__main__":
    main()
