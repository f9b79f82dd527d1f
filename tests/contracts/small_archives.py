"""Small archives in the forms in which MNIST, CIFAR-10 and folders of images are published."""

from __future__ import annotations

import gzip
import hashlib
import io
import pickle
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hugging_face_files import png, write_parquet
from PIL import Image
from torchvision_arrays import cifar, emnist, mnist_like, qmnist, stl10, svhn, usps
from torchvision_files import unchecked

from stresslens.core.torchvision_compat import torchvision
from stresslens.plugins.datasets import _mnist_files

TRAINING, TESTING = 200, 40
"""Images of the small archives."""


def idx(values: np.ndarray) -> bytes:
    """LeCun's format: two zeros, the type (8: unsigned byte), the number of axes, their lengths,
    the bytes."""
    return struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape) + values.tobytes()


def mnist_files() -> dict[str, bytes]:
    generator = np.random.default_rng(0)
    files = {}
    for part, n in (("train", TRAINING), ("t10k", TESTING)):
        labels = (np.arange(n) % 10).astype(np.uint8)
        images = generator.integers(0, 256, (n, 28, 28), dtype=np.uint8)
        images[:, 0, 0] = labels
        files |= {f"{part}-images-idx3-ubyte": idx(images), f"{part}-labels-idx1-ubyte": idx(labels)}
    return files


def small_mnist(monkeypatch: pytest.MonkeyPatch, root: Path, *, zipped: bool = True) -> Path:
    files = mnist_files()
    monkeypatch.setattr(
        _mnist_files, "FILES", {name: hashlib.md5(content).hexdigest() for name, content in files.items()}
    )
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name, content in files.items():
        (raw / (f"{name}.gz" if zipped else name)).write_bytes(
            gzip.compress(content, 1) if zipped else content
        )
    return raw


def small_cifar10(monkeypatch: pytest.MonkeyPatch, root: Path) -> Path:
    dataset = torchvision().datasets.CIFAR10
    folder = root / dataset.base_folder
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)

    def write(name: str, content: Any) -> str:
        (folder / name).write_bytes(pickle.dumps(content))
        return hashlib.md5((folder / name).read_bytes()).hexdigest()

    sums = {}
    batches = [(f"data_batch_{k}", TRAINING // 5) for k in range(1, 6)] + [("test_batch", TESTING)]
    for name, n in batches:
        pixels = generator.integers(0, 256, (n, 3 * 32 * 32), dtype=np.uint8)
        labels = [k % 10 for k in range(n)]
        pixels[:, 0], pixels[:, 1024], pixels[:, 2048 + 5] = labels, 100, 200  # red 0,0; green 0,0; blue 0,5
        sums[name] = write(name, {"data": pixels, "labels": labels})
    meta = write("batches.meta", {"label_names": [f"thing {k}" for k in range(10)]})
    monkeypatch.setattr(dataset, "train_list", [[name, sums[name]] for name, _ in batches[:5]])
    monkeypatch.setattr(dataset, "test_list", [["test_batch", sums["test_batch"]]])
    monkeypatch.setattr(dataset, "meta", {"filename": "batches.meta", "key": "label_names", "md5": meta})
    return folder


def small_folder(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    generator = np.random.default_rng(0)
    for part, n in (("train", TRAINING), ("test", TESTING)):
        for k in range(n):
            file = root / "folder" / part / f"thing {k % 10}" / f"{k}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(generator.integers(0, 256, (9, 7, 3), dtype=np.uint8)).save(file)
    monkeypatch.chdir(root)


def of_torchvision(write: Callable[..., Any]) -> Callable[[pytest.MonkeyPatch, Path], Any]:
    """20 training images and 4 test images of each class of a set of torchvision."""

    def small(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
        unchecked(monkeypatch)
        root.mkdir(parents=True, exist_ok=True)
        write(root, train=20, test=4)

    return small


def small_npz(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    generator = np.random.default_rng(0)
    arrays = {}
    for part, n in (("train", TRAINING), ("test", TESTING)):
        arrays[f"{part}_images"] = generator.integers(0, 256, (n, 9, 7, 3), dtype=np.uint8)
        arrays[f"{part}_labels"] = np.arange(n)[:, None] % 10
    root.mkdir(parents=True)
    np.savez(root / "npz", **arrays)
    monkeypatch.chdir(root)


def small_huggingface(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    generator = np.random.default_rng(0)
    (root / "huggingface").mkdir(parents=True)
    for part, n in (("train", TRAINING), ("test", TESTING)):
        pictures = [png(generator.integers(0, 256, (9, 7, 3), dtype=np.uint8)) for _ in range(n)]
        labels = [k % 10 for k in range(n)]
        write_parquet(root / "huggingface" / f"{part}-00000-of-00001.parquet", pictures, labels)
    monkeypatch.chdir(root)


def small_webdataset(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    generator = np.random.default_rng(0)
    (root / "webdataset").mkdir(parents=True)
    for part, n in (("train", TRAINING), ("test", TESTING)):
        with tarfile.open(root / "webdataset" / f"{part}-000000.tar", "w") as archive:
            for k in range(n):
                picture = png(generator.integers(0, 256, (9, 7, 3), dtype=np.uint8))
                for suffix, content in (("png", picture), ("cls", str(k % 10).encode())):
                    info = tarfile.TarInfo(f"{k:06d}.{suffix}")
                    info.size = len(content)
                    archive.addfile(info, io.BytesIO(content))
    monkeypatch.chdir(root)


def fashion_mnist(root: Path, train: int, test: int) -> None:
    mnist_like("FashionMNIST", train, test)(root)


SMALL: dict[str, Callable[[pytest.MonkeyPatch, Path], Any]] = {
    "digits": lambda monkeypatch, root: None,
    "mnist": small_mnist,
    "coloured_mnist": small_mnist,
    "cifar10": small_cifar10,
    "folder": small_folder,
    "huggingface": small_huggingface,
    "npz": small_npz,
    "webdataset": small_webdataset,
    "torchvision": of_torchvision(fashion_mnist),
    "fashion_mnist": of_torchvision(fashion_mnist),
    "kmnist": of_torchvision(lambda root, train, test: mnist_like("KMNIST", train, test)(root)),
    "cifar100": of_torchvision(lambda root, train, test: cifar("CIFAR100", train, test)(root)),
    "emnist": of_torchvision(emnist),
    "qmnist": of_torchvision(qmnist),
    "usps": of_torchvision(usps),
    "svhn": of_torchvision(svhn),
    "stl10": of_torchvision(stl10),
}
