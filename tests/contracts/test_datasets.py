"""Every data set, without a network: the embedded one whole, the others from small archives in
their own format.

The real MNIST is read only where STRESSLENS_DATA says that it is. tests/config/test_registry.py
checks the signatures.
"""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from small_archives import SMALL, small_cifar10, small_mnist

from stresslens.config import registry
from stresslens.core import cache_folder, data_root
from stresslens.core.data import Data, Split
from stresslens.core.errors import ConfigError, DataError
from stresslens.core.torchvision_compat import torchvision

REAL = os.environ.get("STRESSLENS_DATA")


NEEDED: dict[str, dict[str, Any]] = {
    "folder": {"path": "folder"},
    "huggingface": {"path": "huggingface"},
    "npz": {"path": "npz.npz"},
    "webdataset": {"path": "webdataset"},
    "torchvision": {"name": "FashionMNIST"},
}
TITLES = {"npz": "npz.npz", "torchvision": "FashionMNIST"}
"""What a data set is called, where it is not the plug-in's name."""
CLASSES = {"coloured_mnist": 100, "cifar100": 100, "emnist": 47}
"""Where there are not ten."""


def load(name: str, **options: Any) -> Data:
    options = {**NEEDED.get(name, {}), **options}
    data: Data = registry.resolve("datasets", {name: options})()
    return data


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """An empty data root and an empty cache, and no way to download."""
    root, cache = tmp_path / "data", tmp_path / "cache"
    monkeypatch.setenv("STRESSLENS_DATA", str(root))
    for module in (data_root, cache_folder):
        monkeypatch.setattr(module, "cache_root", lambda: cache)

    def offline(self: Any) -> None:
        raise OSError("Name or service not known\n")

    for dataset in (torchvision().datasets.MNIST, torchvision().datasets.CIFAR10):
        monkeypatch.setattr(dataset, "download", offline)
    return root, cache


every = pytest.mark.parametrize("name", registry.names("datasets"))


def divided_by(name: str, split: Split) -> torch.Tensor:
    """The labels that images are divided by: of colour and digit the digit."""
    return split.labels % 10 if name == "coloured_mnist" else split.labels


def classes_of(name: str) -> int:
    """The number of classes that images are divided by."""
    return 10 if name == "coloured_mnist" else CLASSES.get(name, 10)


# --- what every data set keeps to ---------------------------------------------------------------------------


@pytest.mark.breadth(9)
@every
def test_a_data_set_is_whole(name: str, places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    assert name in SMALL, "a new data set needs a small archive here, so that it is tested without a network"
    SMALL[name](monkeypatch, places[0])
    n, k = 5 * classes_of(name), classes_of(name)
    data = load(name, validation=n)
    assert data.name == TITLES.get(name, name)
    assert set(data.splits) == {"train", "validation", "test"}
    assert len(data.classes) == CLASSES.get(name, 10)
    for split in data.splits.values():
        assert split.images.dtype == torch.uint8
        assert split.images[:].is_contiguous()
        assert int(split.images[:].max()) <= split.scale
        assert divided_by(name, split).unique().tolist() == list(range(k))
    assert data.validation is not None
    assert len(data.validation) == n
    assert data.fingerprint == load(name, validation=n).fingerprint
    assert data.fingerprint != load(name, validation=n, seed=1).fingerprint


@pytest.mark.breadth(5)
@every
def test_a_subset_is_balanced_and_leaves_the_other_splits(
    name: str, places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    SMALL[name](monkeypatch, places[0])
    n, k = 5 * classes_of(name), classes_of(name)
    whole, some = load(name, validation=n), load(name, validation=n, subset=7 * k)
    assert divided_by(name, some.train).bincount().tolist() == [7] * k
    assert some.notes == whole.notes
    for split in ("validation", "test"):
        assert torch.equal(whole.splits[split].images[:], some.splits[split].images[:])
    assert load(name, validation=0).validation is None


@pytest.mark.breadth(17)
@every
@pytest.mark.parametrize(
    "options",
    [
        {"validation": -1},
        {"validation": 10**6},
        {"subset": 0},
        {"subset": -1},
        {"subset": 10**6},
        {"seed": -1},
    ],
    ids=str,
)
def test_what_is_not_to_be_had_is_refused(
    name: str, options: dict[str, Any], places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    SMALL[name](monkeypatch, places[0])
    with pytest.raises(ConfigError):
        load(name, **{"validation": 5 * classes_of(name), **options})


@pytest.mark.breadth(5)
@every
def test_a_subset_that_cannot_be_balanced_is_noted(
    name: str, places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    SMALL[name](monkeypatch, places[0])
    drawn = 5 * classes_of(name) - 5
    n = len(load(name, validation=drawn).train)
    data = load(name, validation=drawn, subset=n)
    assert len(data.train) == n
    smallest = int(divided_by(name, data.train).bincount().min())
    assert smallest * classes_of(name) < n
    note = data.notes[-1]
    assert note.startswith(f"a subset of {n} images cannot be balanced: the smallest class, ")
    assert note.endswith(f", has {smallest}; the other classes fill it up")


# --- digits -------------------------------------------------------------------------------------------------


def test_digits_are_scikit_learns_with_its_division() -> None:
    data = load("digits")
    assert {name: len(split) for name, split in data.splits.items()} == {
        "train": 1078,
        "validation": 359,
        "test": 360,
    }
    assert data.shape == (1, 8, 8)
    assert data.classes == tuple("0123456789")
    images, labels = load_digits(return_X_y=True)
    rows = train_test_split(np.arange(1797), test_size=0.2, stratify=labels, random_state=42)[1]
    assert data.test is not None
    assert np.array_equal(data.test.images.numpy().reshape(360, 64), images[rows])
    assert np.array_equal(data.test.labels.numpy(), labels[rows])


def test_digits_are_all_there_once() -> None:
    data = load("digits")
    rows = torch.cat(
        [torch.cat([s.images.flatten(1).long(), s.labels[:, None]], 1) for s in data.splits.values()]
    )
    images, labels = load_digits(return_X_y=True)
    expected = np.concatenate([images, labels[:, None]], 1).astype(int).tolist()
    assert sorted(rows.tolist()) == sorted(expected)


def test_white_is_16_in_digits() -> None:
    data = load("digits")
    assert data.train.scale == 16
    (batch,) = data.train.batches(len(data.train))
    assert (batch.x.min(), batch.x.max()) == (0, 1)


def test_digits_without_test_or_with_counts() -> None:
    assert load("digits", test=0).test is None
    data = load("digits", test=100, validation=50)
    assert {name: len(split) for name, split in data.splits.items()} == {
        "train": 1647,
        "validation": 50,
        "test": 100,
    }


# --- mnist --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("zipped", [True, False], ids=["gzipped", "unpacked"])
def test_mnist_is_read_as_it_lies(
    places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, zipped: bool
) -> None:
    raw = small_mnist(monkeypatch, places[0], zipped=zipped)
    before = sorted(file.name for file in raw.iterdir())
    data = load("mnist", validation=20)
    assert data.shape == (1, 28, 28)
    assert {name: len(split) for name, split in data.splits.items()} == {
        "train": 180,
        "validation": 20,
        "test": 40,
    }
    for split in data.splits.values():
        assert torch.equal(split.images[:, 0, 0, 0].long(), split.labels)
    assert (
        sorted(file.name for file in raw.iterdir()) == before
    )  # the data root may be read-only: it is left alone


def test_mnist_in_the_cache_needs_no_data_root(
    places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    small_mnist(monkeypatch, places[1], zipped=False)
    assert len(load("mnist", validation=20).train) == 180


def test_an_unpacked_cache_is_used_again(places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    raw = small_mnist(monkeypatch, places[0])
    first = load("mnist", validation=20).fingerprint
    for file in raw.iterdir():
        file.write_bytes(b"")  # would fail if it were read again
    assert load("mnist", validation=20).fingerprint == first


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


BROKEN: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "cut": (cut, "cannot be decompressed"),
    "empty": (lambda content: b"", ""),
    "not gzip": (lambda content: b"<html>404</html>", "cannot be decompressed"),
    "a wrong sum": (lambda content: content[:-8] + b"\0\0\0\0" + content[-4:], "cannot be decompressed"),
    "flipped": (lambda content: content[:10] + b"\xff" * 9 + content[19:], "cannot be decompressed"),
    "another content": (lambda content: gzip.compress(b"something else"), "does not hold the MNIST bytes"),
}


@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_mnist_archive_is_named(
    places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, name: str, how: str
) -> None:
    raw = small_mnist(monkeypatch, places[0])
    damage, says = BROKEN[how]
    content = (raw / f"{name}.gz").read_bytes()
    (raw / f"{name}.gz").write_bytes(damage(content))
    with pytest.raises(DataError, match=rf"{name}\.gz.*{says}.*download it again"):
        load("mnist", validation=20)
    (raw / f"{name}.gz").write_bytes(content)  # and once it is fetched again, nothing wrong was kept
    assert len(load("mnist", validation=20).train) == 180


@pytest.mark.parametrize(
    "content", [b"", b"\0\0\x08\x03", b"nonsense" * 10], ids=["empty", "cut", "nonsense"]
)
def test_a_broken_unpacked_mnist_file_is_a_data_error(
    places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    raw = small_mnist(monkeypatch, places[0], zipped=False)
    (raw / "train-images-idx3-ubyte").write_bytes(content)
    with pytest.raises(DataError, match="MNIST"):
        load("mnist", validation=20)


@pytest.mark.parametrize("missing", [False, True], ids=["nothing there", "one file missing"])
def test_mnist_that_is_not_there_says_where_to_put_it(
    places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, missing: bool
) -> None:
    if missing:
        (small_mnist(monkeypatch, places[0]) / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError) as caught:
        load("mnist")
    says = str(caught.value)
    assert "\n" not in says
    assert str(places[0] / "MNIST" / "raw") in says
    assert "could not be downloaded (Name or service not known)" in says
    assert "t10k-labels-idx1-ubyte.gz" in says
    assert "STRESSLENS_DATA" in says


@pytest.mark.slow
@pytest.mark.skipif(not REAL, reason="STRESSLENS_DATA does not say where the real MNIST is")
def test_the_real_mnist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (data_root, cache_folder):
        monkeypatch.setattr(module, "cache_root", lambda: tmp_path)
    data = load("mnist")
    assert {name: len(split) for name, split in data.splits.items()} == {
        "train": 50_000,
        "validation": 10_000,
        "test": 10_000,
    }
    assert data.test is not None
    assert data.test.labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    assert all(split.labels.unique().tolist() == list(range(10)) for split in data.splits.values())
    pixels = torch.cat([data.splits[name].images for name in ("train", "validation")])
    assert float(pixels.double().mean() / 255) == pytest.approx(0.1307, abs=5e-5)
    assert float(pixels.double().std() / 255) == pytest.approx(0.3081, abs=5e-5)


# --- cifar10 ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", [0, 1], ids=["data root", "cache"])
def test_cifar10_is_read_from_torchvisions_archive(
    places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, where: int
) -> None:
    small_cifar10(monkeypatch, places[where])
    data = load("cifar10", validation=20)
    assert data.shape == (3, 32, 32)
    assert data.classes == tuple(f"thing {k}" for k in range(10))
    assert {name: len(split) for name, split in data.splits.items()} == {
        "train": 180,
        "validation": 20,
        "test": 40,
    }
    for split in data.splits.values():
        assert torch.equal(
            split.images[:, 0, 0, 0].long(), split.labels
        )  # red, green, blue; rows before columns
        assert (split.images[:, 1, 0, 0] == 100).all()
        assert (split.images[:, 2, 0, 5] == 200).all()


def test_cifar10_by_names_of_ones_own(places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    small_cifar10(monkeypatch, places[0])
    assert load("cifar10", validation=20, names=list("abcdefghij")).classes == tuple("abcdefghij")
    for names in (list("abc"), list("aacdefghij")):
        with pytest.raises(ConfigError, match="ten classes, each with its own name"):
            load("cifar10", validation=20, names=names)


@pytest.mark.parametrize("damage", ["nothing there", "one file missing", "one file cut"])
def test_cifar10_that_is_not_whole_says_where_to_put_it(
    places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    if damage != "nothing there":
        file = small_cifar10(monkeypatch, places[0]) / "data_batch_3"
        if damage == "one file missing":
            file.unlink()
        else:
            file.write_bytes(cut(file.read_bytes()))
    with pytest.raises(DataError) as caught:
        load("cifar10")
    says = str(caught.value)
    assert str(places[0] / "cifar-10-batches-py") in says
    assert "could not be downloaded (Name or service not known)" in says
    assert "cifar-10-python.tar.gz" in says
    assert "STRESSLENS_DATA" in says
