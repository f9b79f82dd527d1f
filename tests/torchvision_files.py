"""Small files in the format of every classification set of torchvision, for tests without a network.

`FILES[name](root)` writes them; every part has pictures of every class. Checksums are not looked at
(`unchecked`).
"""

from __future__ import annotations

import bz2
import csv
import json
import os
import pickle
import struct
import sys
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch
from PIL import Image

from stresslens.core.torchvision_compat import torchvision

EACH, TESTED = 5, 2
"""Pictures of each class among the training pictures, and among those of any other part."""


def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Checksums of torchvision's files are not looked at, only whether the files are there."""
    torchvision()

    def is_there(path: str, md5: str | None = None) -> bool:
        return os.path.isfile(path)

    for name, module in list(sys.modules.items()):
        if name.startswith("torchvision.datasets.") and hasattr(module, "check_integrity"):
            monkeypatch.setattr(module, "check_integrity", is_there)


class Maker:
    """Random pictures of one size, all different."""

    def __init__(self, height: int, width: int) -> None:
        self.size, self.numbers = (height, width), np.random.default_rng(0)

    def pixels(self, n: int, channels: int = 3) -> np.ndarray:
        """(n,H,W,C), or (n,H,W) for one channel."""
        shape = (n, *self.size) + ((channels,) if channels > 1 else ())
        return self.numbers.integers(0, 256, shape, dtype=np.uint8)

    def save(self, path: Path, channels: int = 3) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(self.pixels(1, channels)[0]).save(path)


def labels_of(classes: int, each: int) -> np.ndarray:
    return np.tile(np.arange(classes), each)


def idx(values: np.ndarray, kind: int = 8) -> bytes:
    head = struct.pack(f">BBBB{values.ndim}I", 0, 0, kind, values.ndim, *values.shape)
    return head + values.tobytes()


# --- pixels -------------------------------------------------------------------------------------------------


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


def arrays_as_h5py(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module in place of h5py that reads npz."""
    module = types.ModuleType("h5py")
    module.File = np.load  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "h5py", module)


# --- files --------------------------------------------------------------------------------------------------


def in_folders(
    *parts: tuple[str, int], classes: tuple[str, ...] = ("ant", "bee"), suffix: str = "jpg", channels: int = 3
) -> Callable[[Path], None]:
    """Folders for classes in a folder for each part."""

    def write(root: Path) -> None:
        make = Maker(9, 7)
        for part, each in parts:
            for name in classes:
                for k in range(each):
                    make.save(root / part / name / f"{k}.{suffix}", channels)

    return write


def caltech101(root: Path) -> None:
    make, folder = Maker(9, 7), root / "caltech101" / "101_ObjectCategories"
    for name in ("BACKGROUND_Google", "Faces", "ant"):
        for k in range(EACH):
            make.save(folder / name / f"image_{k + 1:04d}.jpg")


def caltech256(root: Path) -> None:
    make, folder = Maker(9, 7), root / "caltech256" / "256_ObjectCategories"
    for number, name in enumerate(("ak47", "american-flag"), 1):
        for k in range(EACH):
            make.save(folder / f"{number:03d}.{name}" / f"{number:03d}_{k + 1:04d}.jpg")


def celeba(root: Path) -> None:
    make, folder, n = Maker(9, 7), root / "celeba", 12
    names = [f"{k + 1:06d}.jpg" for k in range(n)]
    for name in names:
        make.save(folder / "img_align_celeba" / name)
    smiling = [1 if k % 2 else -1 for k in range(n)]
    parts = [0] * 8 + [1] * 2 + [2] * 2
    tables: dict[str, tuple[list[str], Callable[[int], str]]] = {
        "list_eval_partition.txt": ([], lambda k: str(parts[k])),
        "identity_CelebA.txt": ([], lambda k: str(k)),
        "list_bbox_celeba.txt": ([str(n), "image_id x_1 y_1 width height"], lambda k: "1 2 3 4"),
        "list_landmarks_align_celeba.txt": ([str(n), "a b c d"], lambda k: "1 2 3 4"),
        "list_attr_celeba.txt": ([str(n), "Bald Smiling "], lambda k: f"-1 {smiling[k]}"),
    }
    for file, (head, row) in tables.items():
        lines = [*head, *(f"{name} {row(k)}" for k, name in enumerate(names))]
        (folder / file).write_text("\n".join(lines) + "\n")


def clevr(root: Path) -> None:
    make, folder = Maker(9, 7), root / "clevr" / "CLEVR_v1.0"
    (folder / "scenes").mkdir(parents=True)
    for part, each in (("train", EACH), ("val", TESTED), ("test", 1)):
        counts = labels_of(8, each) + 3
        names = [f"CLEVR_{part}_{k:06d}.png" for k in range(len(counts))]
        for name in names:
            make.save(folder / "images" / part / name)
        scenes = [
            {"image_filename": name, "objects": [{}] * int(count)} for name, count in zip(names, counts)
        ]
        if part != "test":
            (folder / "scenes" / f"CLEVR_{part}_scenes.json").write_text(json.dumps({"scenes": scenes}))


def dtd(root: Path) -> None:
    make, folder = Maker(9, 7), root / "dtd" / "dtd"
    (folder / "labels").mkdir(parents=True)
    of_part: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for name in ("banded", "blotchy"):
        for part, each in (("train", EACH), ("val", TESTED), ("test", TESTED)):
            for k in range(each):
                file = f"{name}/{name}_{part}_{k}.jpg"
                make.save(folder / "images" / file)
                of_part[part].append(file)
    for partition in range(1, 11):
        for part, files in of_part.items():
            (folder / "labels" / f"{part}{partition}.txt").write_text("\n".join(files) + "\n")


def fgvc_aircraft(root: Path) -> None:
    make, data = Maker(9, 7), root / "fgvc-aircraft-2013b" / "data"
    names = {
        "variant": ("737-700", "A320", "A321"),
        "family": ("Boeing 737", "A320"),
        "manufacturer": ("Boeing", "Airbus"),
    }
    files = {"variant": "variants", "family": "families", "manufacturer": "manufacturers"}
    make.save(data / "images" / "0000.jpg")
    for level, classes in names.items():
        (data / f"{files[level]}.txt").write_text("\n".join(classes) + "\n")
    number = 1
    for part, each in (("train", EACH), ("val", TESTED), ("test", TESTED)):
        lines: dict[str, list[str]] = {level: [] for level in names}
        for k in labels_of(3, each):
            make.save(data / "images" / f"{number:07d}.jpg")
            for level, classes in names.items():
                lines[level].append(f"{number:07d} {classes[min(k, len(classes) - 1)]}")
            number += 1
        for level, rows in lines.items():
            (data / f"images_{level}_{part}.txt").write_text("\n".join(rows) + "\n")


def flowers102(root: Path) -> None:
    make, folder = Maker(9, 7), root / "flowers-102"
    labels = np.concatenate([labels_of(102, 1), labels_of(102, 1), labels_of(102, 1)])
    for k in range(len(labels)):
        make.save(folder / "jpg" / f"image_{k + 1:05d}.jpg")
    scipy.io.savemat(folder / "imagelabels.mat", {"labels": labels[None] + 1})
    ids = np.arange(1, len(labels) + 1)[None]
    parts = {"trnid": ids[:, :102], "valid": ids[:, 102:204], "tstid": ids[:, 204:]}
    scipy.io.savemat(folder / "setid.mat", parts)


def food101(root: Path) -> None:
    make, folder = Maker(9, 7), root / "food-101"
    (folder / "meta").mkdir(parents=True)
    for part, each in (("train", EACH), ("test", TESTED)):
        listed = {name: [f"{name}/{part}{k}" for k in range(each)] for name in ("apple_pie", "waffles")}
        for files in listed.values():
            for file in files:
                make.save(folder / "images" / f"{file}.jpg")
        (folder / "meta" / f"{part}.json").write_text(json.dumps(listed))


def gtsrb(root: Path) -> None:
    make, folder = Maker(9, 7), root / "gtsrb"
    for label in range(43):
        for track in range(5):
            for k in range(2):
                file = folder / "GTSRB" / "Training" / f"{label:05d}" / f"{track:05d}_{k:05d}.ppm"
                make.save(file)
    with (folder / "GT-final_test.csv").open("w", newline="") as file:
        rows = csv.DictWriter(file, ["Filename", "Width", "ClassId"], delimiter=";")
        rows.writeheader()
        for k in range(43):
            make.save(folder / "GTSRB" / "Final_Test" / "Images" / f"{k:05d}.ppm")
            rows.writerow({"Filename": f"{k:05d}.ppm", "Width": 7, "ClassId": k})


WNIDS = {
    "n01440764": ("tench", "Tinca tinca"),
    "n02012849": ("crane",),
    "n03126707": ("crane",),
}


def imagenet(root: Path) -> None:
    in_folders(("train", EACH), ("val", TESTED), classes=tuple(WNIDS), suffix="JPEG")(root)
    torch.save((WNIDS, ["n01440764"]), root / "meta.bin")


def imagenette(root: Path) -> None:
    for folder in ("imagenette2", "imagenette2-320", "imagenette2-160"):
        parts = ((f"{folder}/train", EACH), (f"{folder}/val", TESTED))
        classes = tuple(torchvision().datasets.Imagenette._WNID_TO_CLASS)
        in_folders(*parts, classes=classes, suffix="jpeg")(root)


def inaturalist(root: Path) -> None:
    names = tuple(f"{k:05d}_Animalia_Arthropoda_Insecta_Coleoptera_F_G_s{k}" for k in range(2))
    parts = (("2021_train", EACH), ("2021_train_mini", EACH), ("2021_valid", TESTED))
    in_folders(*parts, classes=names)(root)
    in_folders(("2017", EACH), classes=("Aves/Corvus corax", "Insecta/Apis mellifera"))(root)
    for year in ("2018", "2019"):
        in_folders((year, EACH), classes=("Aves/0", "Insecta/1"))(root)


def lfw_people(root: Path) -> None:
    make, folder = Maker(9, 7), root / "lfw-py"
    people = {"Ann_A": EACH, "Bob_B": EACH + 1, "Cy_C": 1}
    for images, archive, _ in torchvision().datasets.LFWPeople.file_dict.values():
        for name, count in people.items():
            for k in range(count):
                make.save(folder / images / name / f"{name}_{k + 1:04d}.jpg")
        (folder / archive).write_bytes(b"")
    (folder / "lfw-names.txt").write_text("".join(f"{name}\t{count}\n" for name, count in people.items()))
    rows = [f"{name}\t{count}\n" for name, count in people.items()]
    (folder / "people.txt").write_text("2\n" + f"2\n{rows[0]}{rows[1]}" + f"1\n{rows[2]}")


def omniglot(root: Path) -> None:
    make, folder = Maker(11, 11), root / "omniglot-py"
    for part in ("images_background", "images_evaluation"):
        for name in ("Greek/character02", "Greek/character01", "Arcadian/character01"):
            for k in range(EACH):
                make.save(folder / part / name / f"{k:04d}_{k:02d}.png", channels=1)
        (folder / f"{part}.zip").write_bytes(b"")


def oxford_iiit_pet(root: Path) -> None:
    make, folder = Maker(9, 7), root / "oxford-iiit-pet"
    (folder / "annotations").mkdir(parents=True)
    for part, each in (("trainval", EACH), ("test", TESTED)):
        lines = []
        for label, (name, kind) in enumerate((("Abyssinian", 1), ("american_bulldog", 2), ("Birman", 1)), 1):
            for k in range(each):
                file = f"{name}_{part}{k}".replace(f"_{part}", f"_{len(part)}")
                make.save(folder / "images" / f"{file}.jpg")
                lines.append(f"{file} {label} {kind} 1")
        (folder / "annotations" / f"{part}.txt").write_text("\n".join(lines) + "\n")


def places365(root: Path) -> None:
    make = Maker(9, 7)
    names = ["/a/airfield", "/c/cliff"]
    root.joinpath("categories_places365.txt").write_text("".join(f"{n} {k}\n" for k, n in enumerate(names)))
    for part, list_name, each in (("train", "train_standard", EACH), ("val", "val", TESTED)):
        lines = []
        for k, label in enumerate(labels_of(2, each)):
            file = f"{names[label]}/{k}.jpg" if part == "train" else f"Places365_val_{k:08d}.jpg"
            lines.append(f"{file} {label}\n")
            for size in ("256", "large"):
                folder = f"data_{size}_standard" if part == "train" else f"val_{size}"
                make.save(root / folder / file.lstrip("/"))
        root.joinpath(f"places365_{list_name}.txt").write_text("".join(lines))


def stanford_cars(root: Path) -> None:
    make, folder = Maker(9, 7), root / "stanford_cars"
    (folder / "devkit").mkdir(parents=True)
    names = np.array(["Acura RL 2012", "Audi S4 2007"], dtype=object)
    scipy.io.savemat(folder / "devkit" / "cars_meta.mat", {"class_names": names})
    for part, each, file in (
        ("train", EACH, folder / "devkit" / "cars_train_annos.mat"),
        ("test", TESTED, folder / "cars_test_annos_withlabels.mat"),
    ):
        labels = labels_of(2, each)
        rows = [(label + 1, f"{k:05d}.jpg") for k, label in enumerate(labels)]
        for _, name in rows:
            make.save(folder / f"cars_{part}" / name)
        kinds = [("class", "i4"), ("fname", object)]
        scipy.io.savemat(file, {"annotations": np.array(rows, dtype=kinds)})


def sun397(root: Path) -> None:
    make, folder = Maker(9, 7), root / "SUN397"
    names = ("/a/abbey", "/c/church/indoor")
    for name in names:
        for k in range(EACH):
            make.save(folder / name.lstrip("/") / f"sun_{name[3:5]}{k}.jpg")
    (folder / "ClassName.txt").write_text("\n".join(names) + "\n")


FILES: dict[str, Callable[[Path], None]] = {
    "CIFAR10": cifar("CIFAR10"),
    "CIFAR100": cifar("CIFAR100"),
    "Caltech101": caltech101,
    "Caltech256": caltech256,
    "CelebA": celeba,
    "CLEVRClassification": clevr,
    "Country211": in_folders(
        ("country211/train", EACH), ("country211/valid", TESTED), ("country211/test", TESTED)
    ),
    "DTD": dtd,
    "EMNIST": emnist,
    "EuroSAT": in_folders(("eurosat/2750", EACH), classes=("Forest", "River")),
    "FER2013": fer2013,
    "FGVCAircraft": fgvc_aircraft,
    "FashionMNIST": mnist_like("FashionMNIST"),
    "Flowers102": flowers102,
    "Food101": food101,
    "GTSRB": gtsrb,
    "INaturalist": inaturalist,
    "ImageNet": imagenet,
    "Imagenette": imagenette,
    "KMNIST": mnist_like("KMNIST"),
    "LFWPeople": lfw_people,
    "MNIST": mnist_like("MNIST"),
    "Omniglot": omniglot,
    "OxfordIIITPet": oxford_iiit_pet,
    "PCAM": pcam,
    "Places365": places365,
    "QMNIST": qmnist,
    "RenderedSST2": in_folders(
        *(
            ("rendered-sst2/" + part, each)
            for part, each in (("train", EACH), ("valid", TESTED), ("test", 2))
        ),
        classes=("negative", "positive"),
        suffix="png",
    ),
    "SEMEION": semeion,
    "STL10": stl10,
    "SUN397": sun397,
    "SVHN": svhn,
    "StanfordCars": stanford_cars,
    "USPS": usps,
}
