"""The sets of torchvision that are arrays, small; see `torchvision_files`."""

from __future__ import annotations

import bz2
import csv
import pickle
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import scipy.io
from random_pictures import EACH, TESTED, Maker, labels_of

from stresslens.core.torchvision_compat import torchvision


def idx(values: np.ndarray, kind: int = 8) -> bytes:
    head = struct.pack(f">BBBB{values.ndim}I", 0, 0, kind, values.ndim, *values.shape)
    return head + values.tobytes()


def mnist_like(name: str, train: int = EACH, test: int = TESTED) -> Callable[[Path], None]:
    def write(root: Path) -> None:
        make, raw = Maker(28, 28), root / name / "raw"
        raw.mkdir(parents=True)
        for part, each in (("train", train), ("t10k", test)):
            labels = labels_of(10, each)
            (raw / f"{part}-images-idx3-ubyte").write_bytes(idx(make.pixels(len(labels), 1)))
            (raw / f"{part}-labels-idx1-ubyte").write_bytes(idx(labels.astype(np.uint8)))

    return write


EMNIST_CLASSES = {"balanced": 47, "byclass": 62, "bymerge": 47, "letters": 26, "digits": 10, "mnist": 10}


def emnist(root: Path, train: int = EACH, test: int = TESTED) -> None:
    make, raw = Maker(28, 28), root / "EMNIST" / "raw"
    raw.mkdir(parents=True)
    for variant, classes in EMNIST_CLASSES.items():
        for part, each in (("train", train), ("test", test)):
            labels = labels_of(classes, each) + (variant == "letters")
            for what, content in (
                ("images-idx3-ubyte", idx(make.pixels(len(labels), 1))),
                ("labels-idx1-ubyte", idx(labels.astype(np.uint8))),
            ):
                (raw / f"emnist-{variant}-{part}-{what}").write_bytes(content)


def qmnist(root: Path, train: int = EACH, test: int = TESTED) -> None:
    make, raw = Maker(28, 28), root / "QMNIST" / "raw"
    raw.mkdir(parents=True)
    for part, each in (("train", train), ("test", test)):
        labels = np.zeros((10 * each, 8), ">i4")
        labels[:, 0] = labels_of(10, each)
        (raw / f"qmnist-{part}-images-idx3-ubyte").write_bytes(idx(make.pixels(len(labels), 1)))
        (raw / f"qmnist-{part}-labels-idx2-int").write_bytes(idx(labels, 12))


def cifar(name: str, train: int = EACH, test: int = TESTED) -> Callable[[Path], None]:
    def write(root: Path) -> None:
        dataset = getattr(torchvision().datasets, name)
        folder, make = root / dataset.base_folder, Maker(32, 32)
        folder.mkdir(parents=True)
        classes, key = (10, "labels") if name == "CIFAR10" else (100, "fine_labels")
        for files, each in ((dataset.train_list, train), (dataset.test_list, test)):
            for k, (file, _) in enumerate(files):
                labels = labels_of(classes, each)[k :: len(files)]
                pixels = make.pixels(len(labels)).reshape(len(labels), -1)
                (folder / file).write_bytes(pickle.dumps({"data": pixels, key: labels.tolist()}))
        names = {dataset.meta["key"]: [f"thing {k}" for k in range(classes)]}
        (folder / dataset.meta["filename"]).write_bytes(pickle.dumps(names))

    return write


def usps(root: Path, train: int = EACH, test: int = TESTED) -> None:
    make = Maker(16, 16)
    for file, each in (("usps.bz2", train), ("usps.t.bz2", test)):
        labels = labels_of(10, each)
        rows = make.pixels(len(labels), 1).reshape(len(labels), -1) / 127.5 - 1
        lines = [
            " ".join([str(label + 1), *(f"{k}:{value:.6f}" for k, value in enumerate(row, 1))])
            for label, row in zip(labels, rows)
        ]
        (root / file).write_bytes(bz2.compress("\n".join(lines).encode()))


def svhn(root: Path, train: int = EACH, test: int = TESTED) -> None:
    make = Maker(32, 32)
    for part, each in (("train", train), ("test", test)):
        labels = labels_of(10, each)
        written = np.where(labels == 0, 10, labels)[:, None].astype(np.uint8)
        pixels = make.pixels(len(labels)).transpose(1, 2, 3, 0)
        scipy.io.savemat(root / f"{part}_32x32.mat", {"X": pixels, "y": written})


def stl10(root: Path, train: int = EACH, test: int = TESTED) -> None:
    make, folder = Maker(96, 96), root / "stl10_binary"
    folder.mkdir(parents=True)
    for part, each in (("train", train), ("test", test)):
        labels = labels_of(10, each)
        (folder / f"{part}_X.bin").write_bytes(make.pixels(len(labels)).tobytes())
        (folder / f"{part}_y.bin").write_bytes((labels + 1).astype(np.uint8).tobytes())
    (folder / "unlabeled_X.bin").write_bytes(make.pixels(3).tobytes())
    (folder / "class_names.txt").write_text("\n".join(f"thing {k}" for k in range(10)))


def semeion(root: Path) -> None:
    labels = labels_of(10, EACH)
    pixels = np.random.default_rng(0).integers(0, 2, (len(labels), 256))
    np.savetxt(root / "semeion.data", np.concatenate([pixels, np.eye(10)[labels]], 1), "%.4f")


def fer2013(root: Path) -> None:
    make = Maker(48, 48)
    (root / "fer2013").mkdir()
    with (root / "fer2013" / "fer2013.csv").open("w", newline="") as file:
        rows = csv.DictWriter(file, ["emotion", "pixels", "Usage"])
        rows.writeheader()
        for usage, each in (("Training", EACH), ("PublicTest", 1), ("PrivateTest", 1)):
            for label in labels_of(7, each):
                pixels = " ".join(map(str, make.pixels(1, 1).reshape(-1)))
                rows.writerow({"emotion": label, "pixels": pixels, "Usage": usage})


def pcam(root: Path) -> None:
    """The files are npz, which `arrays_as_h5py` reads: nothing here writes HDF5."""
    make, folder = Maker(96, 96), root / "pcam"
    folder.mkdir()
    for part, each in (("train", EACH), ("valid", TESTED), ("test", TESTED)):
        labels = labels_of(2, each)
        for kind, values in (("x", make.pixels(len(labels))), ("y", labels.reshape(-1, 1, 1, 1))):
            with (folder / f"camelyonpatch_level_2_split_{part}_{kind}.h5").open("wb") as file:
                np.savez(file, **{kind: values})
