"""The sets of torchvision that are files of pictures, small; see `torchvision_files`."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import scipy.io
import torch
from random_pictures import EACH, TESTED, Maker, labels_of

from stresslens.core.torchvision_compat import torchvision


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
