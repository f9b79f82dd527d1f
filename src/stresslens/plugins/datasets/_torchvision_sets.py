"""The classification sets of torchvision: which keywords give each part, which files they need, and how
a set's object gives its pictures."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stresslens.core.errors import ConfigError
from stresslens.core.spelling import closest
from stresslens.core.text import repeated_words

Parts = Mapping[str | None, Mapping[str, Any]]
"""The keywords of torchvision's class for each part; those under None give all pictures, without parts."""

Labelled = tuple[Sequence[str], Sequence[int]]
"""Files of pictures, and a class number for each."""

DIGITS = tuple("0123456789")
TRAIN_TEST: Parts = {"train": {"train": True}, "test": {"train": False}}
WHOLE: Parts = {None: {}}


def _splits(**of_part: str) -> Parts:
    return {part: {"split": value} for part, value in of_part.items()}


TWO = _splits(train="train", test="test")
THREE = _splits(train="train", validation="val", test="test")
VALID = _splits(train="train", validation="valid", test="test")
VAL_AS_TEST = _splits(train="train", test="val")


def _variants(parts: Parts, keyword: str, **values: Any) -> dict[str, Parts]:
    """A variant for each value of a keyword, by name."""
    return {
        name: {part: {**given, keyword: value} for part, given in parts.items()}
        for name, value in values.items()
    }


@dataclass(frozen=True)
class TorchvisionSet:
    """How a set of torchvision is read."""

    variants: Mapping[str, Parts]
    """The parts of each variant; the first is the default. A set without variants has one, ""."""
    needs: str
    """Its files below the folder that torchvision calls root, for messages."""
    classes: Callable[[Any], Sequence[Any]] = lambda found: found.classes
    """The names of the classes, from the object of the train part."""
    files: Callable[[Any], Labelled] | None = None
    """The files of an object; None where the object holds pixels."""
    pixels: Callable[[Any], tuple[NDArray[Any], Any]] | None = None
    """The pixels (N,H,W), (N,H,W,3) or (N,3,H,W) and the class numbers of an object that holds pixels."""
    downloads: bool = True
    """Whether torchvision can download it."""
    group: Callable[[str], str] | None = None
    """The group of a file, whose pictures stay in one part."""
    notes: tuple[str, ...] = ()


def _by_loader(found: Any) -> Labelled:
    """The files of an object whose loader returns the path."""
    pairs = [found[k] for k in range(len(found))]
    return [os.fspath(path) for path, _ in pairs], [label for _, label in pairs]


def _caltech101(found: Any) -> Labelled:
    folder = os.path.join(found.root, "101_ObjectCategories")
    names = [f"image_{number:04d}.jpg" for number in found.index]
    return [os.path.join(folder, found.categories[y], name) for y, name in zip(found.y, names)], found.y


def _caltech256(found: Any) -> Labelled:
    folder = os.path.join(found.root, "256_ObjectCategories")
    names = [f"{y + 1:03d}_{number:04d}.jpg" for y, number in zip(found.y, found.index)]
    return [os.path.join(folder, found.categories[y], name) for y, name in zip(found.y, names)], found.y


def _celeba(attribute: str) -> TorchvisionSet:
    """The set of one of CelebA's forty attributes."""

    def files(found: Any) -> Labelled:
        folder = os.path.join(found.root, found.base_folder, "img_align_celeba")
        names = [name for name in found.attr_names if name]
        if attribute not in names:
            raise ConfigError(f"variant: CelebA has no attribute {attribute!r}; {closest(attribute, names)}")
        column = names.index(attribute)
        return [os.path.join(folder, name) for name in found.filename], found.attr[:, column].tolist()

    return TorchvisionSet(
        {attribute: VALID},
        "celeba (the unpacked img_align_celeba.zip, and its five lists *.txt)",
        classes=lambda found: (f"not {attribute}", attribute),
        files=files,
    )


def _clevr(found: Any) -> Labelled:
    """The files, and their numbers of objects counted from that of the first class."""
    names, counts = _by_loader(found)
    return names, [count - int(OBJECTS[0]) for count in counts]


def _samples(found: Any) -> Labelled:
    return [path for path, _ in found._samples], [label for _, label in found._samples]


def _pets(found: Any) -> Labelled:
    labels = found._labels if found._target_types == ["category"] else found._bin_labels
    return [os.fspath(path) for path in found._images], labels


def _omniglot(found: Any) -> Labelled:
    """The files, with class numbers in the order of the sorted names; torchvision takes the file system's."""
    number = {name: k for k, name in enumerate(sorted(found._characters))}
    names, labels = _by_loader(found)
    return names, [number[found._characters[label]] for label in labels]


def _data_and_targets(found: Any) -> tuple[NDArray[Any], Any]:
    return np.asarray(found.data), found.targets


def _data_and_labels(found: Any) -> tuple[NDArray[Any], Any]:
    return np.asarray(found.data), found.labels


def _emnist(found: Any) -> tuple[NDArray[Any], Any]:
    """The letters of EMNIST are numbered from 1; torchvision calls the class 0 "N/A"."""
    return np.asarray(found.data), found.targets - int(found.split == "letters")


def _fer2013(found: Any) -> tuple[NDArray[Any], Any]:
    images = [image.numpy() for image, label in found._samples if label is not None]
    labels = [label for _, label in found._samples if label is not None]
    return np.stack(images) if images else np.zeros((0, 48, 48), np.uint8), labels


def _pcam(found: Any) -> tuple[NDArray[Any], Any]:
    files = found._FILES[found._split]
    images, targets = (found._base_folder / files[each][0] for each in ("images", "targets"))
    with found.h5py.File(images) as file, found.h5py.File(targets) as labels:
        return np.asarray(file["x"][:]), np.asarray(labels["y"][:]).reshape(-1).astype(np.int64)


def _track(file: str) -> str:
    """Of GTSRB: the sign that was filmed, thirty pictures of which are in the set."""
    return "/".join(file.replace(os.sep, "/").split("/")[-2:]).partition("_")[0]


def _wordnet(found: Any) -> list[str]:
    """The words of each class; a class whose words are those of another one has its WordNet id, too."""
    names = [", ".join(words) for words in found.classes]
    several = set(repeated_words(names))
    return [f"{name} ({wnid})" if name in several else name for name, wnid in zip(names, found.wnids)]


MNIST_FILES = "the four files of MNIST's format, gzipped or not"
EMOTIONS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
OBJECTS = tuple(str(count) for count in range(3, 11))
ON_THEIR_SIDE = "the pictures lie on their side, as the files and torchvision have them (rows are columns)"


def _inaturalist() -> dict[str, Parts]:
    valid = {"version": "2021_valid"}
    by_year: dict[str, Parts] = {year: {None: {"version": year}} for year in ("2019", "2018", "2017")}
    return {
        "2021": {"train": {"version": "2021_train"}, "test": valid},
        "2021_mini": {"train": {"version": "2021_train_mini"}, "test": valid},
        **by_year,
    }


def _of_pixels(parts: Parts, needs: str, **others: Any) -> TorchvisionSet:
    return TorchvisionSet({"": parts}, needs, **{"pixels": _data_and_targets, **others})


def _of_files(parts: Parts, needs: str, **others: Any) -> TorchvisionSet:
    return TorchvisionSet({"": parts}, needs, **{"files": _by_loader, **others})


SETS: Mapping[str, TorchvisionSet] = {
    "CIFAR10": _of_pixels(TRAIN_TEST, "cifar-10-batches-py (the unpacked cifar-10-python.tar.gz)"),
    "CIFAR100": _of_pixels(TRAIN_TEST, "cifar-100-python (the unpacked cifar-100-python.tar.gz)"),
    "Caltech101": _of_files(
        WHOLE,
        "caltech101/101_ObjectCategories",
        classes=lambda found: found.categories,
        files=_caltech101,
    ),
    "Caltech256": _of_files(
        WHOLE,
        "caltech256/256_ObjectCategories",
        classes=lambda found: found.categories,
        files=_caltech256,
    ),
    "CLEVRClassification": _of_files(
        VAL_AS_TEST,
        "clevr/CLEVR_v1.0 (its folders images and scenes)",
        classes=lambda found: OBJECTS,
        files=_clevr,
    ),
    "Country211": _of_files(VALID, "country211 (its folders train, valid and test)"),
    "DTD": TorchvisionSet(
        _variants(THREE, "partition", **{str(k): k for k in range(1, 11)}),
        "dtd/dtd (its folders images and labels)",
        files=_by_loader,
    ),
    "EMNIST": TorchvisionSet(
        {
            name: {part: {**given, "split": name} for part, given in TRAIN_TEST.items()}
            for name in ("balanced", "byclass", "bymerge", "letters", "digits", "mnist")
        },
        "EMNIST/raw (emnist-…-images-idx3-ubyte and labels, gzipped or not)",
        classes=lambda found: found.classes[found.split == "letters" :],
        pixels=_emnist,
        notes=(ON_THEIR_SIDE,),
    ),
    "EuroSAT": _of_files(WHOLE, "eurosat/2750"),
    "FER2013": _of_pixels(
        TWO,
        "fer2013/fer2013.csv, or icml_face_data.csv there (train.csv alone has no labels for test)",
        classes=lambda found: EMOTIONS,
        pixels=_fer2013,
        downloads=False,
    ),
    "FGVCAircraft": TorchvisionSet(
        _variants(THREE, "annotation_level", variant="variant", family="family", manufacturer="manufacturer"),
        "fgvc-aircraft-2013b",
        files=_by_loader,
    ),
    "FashionMNIST": _of_pixels(TRAIN_TEST, f"FashionMNIST/raw ({MNIST_FILES})"),
    "Flowers102": _of_files(THREE, "flowers-102 (its folder jpg, imagelabels.mat and setid.mat)"),
    "Food101": _of_files(TWO, "food-101 (its folders images and meta)"),
    "GTSRB": _of_files(
        TWO,
        "gtsrb (its folder GTSRB, and GT-final_test.csv)",
        classes=lambda found: [str(k) for k in range(43)],
        files=_samples,
        group=_track,
    ),
    "INaturalist": TorchvisionSet(
        _inaturalist(),
        "2021_train, 2021_train_mini and 2021_valid, or 2019, 2018 or 2017",
        classes=lambda found: found.all_categories,
        files=_by_loader,
    ),
    "ImageNet": _of_files(
        VAL_AS_TEST,
        "ILSVRC2012_devkit_t12.tar.gz, ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar, "
        "or what torchvision makes of them (meta.bin, train, val)",
        classes=_wordnet,
        downloads=False,
    ),
    "Imagenette": TorchvisionSet(
        _variants(VAL_AS_TEST, "size", full="full", **{"320px": "320px", "160px": "160px"}),
        "imagenette2, imagenette2-320 or imagenette2-160",
        classes=_wordnet,
        files=_by_loader,
    ),
    "KMNIST": _of_pixels(TRAIN_TEST, f"KMNIST/raw ({MNIST_FILES})"),
    "LFWPeople": TorchvisionSet(
        _variants(
            {None: {"split": "10fold"}},
            "image_set",
            funneled="funneled",
            deepfunneled="deepfunneled",
            original="original",
        ),
        "lfw-py (the archive and its unpacked folder, people.txt and lfw-names.txt)",
        classes=lambda found: list(found.class_to_idx),
        files=_by_loader,
        downloads=False,
    ),
    "MNIST": _of_pixels(TRAIN_TEST, f"MNIST/raw ({MNIST_FILES})"),
    "Omniglot": TorchvisionSet(
        _variants(WHOLE, "background", background=True, evaluation=False),
        "omniglot-py (images_background or images_evaluation, and its zip)",
        classes=lambda found: sorted(found._characters),
        files=_omniglot,
    ),
    "OxfordIIITPet": TorchvisionSet(
        _variants(
            _splits(train="trainval", test="test"),
            "target_types",
            **{"category": "category", "binary-category": "binary-category"},
        ),
        "oxford-iiit-pet (its folders images and annotations)",
        classes=lambda found: found.classes if found._target_types == ["category"] else found.bin_classes,
        files=_pets,
    ),
    "PCAM": _of_pixels(
        THREE,
        "pcam (its six files *.h5)",
        classes=lambda found: ("no tumor", "tumor"),
        pixels=_pcam,
    ),
    "Places365": TorchvisionSet(
        _variants(_splits(train="train-standard", test="val"), "small", large=False, small=True),
        "categories_places365.txt, places365_train_standard.txt, places365_val.txt and the folders "
        "of pictures (data_large_standard and val_large, or data_256_standard and val_256)",
        files=_by_loader,
    ),
    "QMNIST": _of_pixels(
        TRAIN_TEST,
        "QMNIST/raw (qmnist-train-… and qmnist-test-…, gzipped or not)",
        pixels=lambda found: (np.asarray(found.data), found.targets[:, 0]),
    ),
    "RenderedSST2": _of_files(THREE, "rendered-sst2 (its folders train, valid and test)"),
    "SEMEION": _of_pixels(WHOLE, "semeion.data", classes=lambda found: DIGITS, pixels=_data_and_labels),
    "STL10": _of_pixels(TWO, "stl10_binary (the unpacked stl10_binary.tar.gz)", pixels=_data_and_labels),
    "SUN397": _of_files(WHOLE, "SUN397 (with its ClassName.txt)"),
    "SVHN": _of_pixels(
        TWO, "train_32x32.mat and test_32x32.mat", classes=lambda found: DIGITS, pixels=_data_and_labels
    ),
    "StanfordCars": _of_files(
        TWO,
        "stanford_cars (its folders devkit, cars_train and cars_test, and cars_test_annos_withlabels.mat)",
        downloads=False,
    ),
    "USPS": _of_pixels(TRAIN_TEST, "usps.bz2 and usps.t.bz2", classes=lambda found: DIGITS),
}
"""Every set of torchvision with one class for each picture, but CelebA, which has forty (`_celeba`)."""

REFUSED = {
    "FakeData": "its pictures are random numbers",
    "LFWPairs": "it has pairs of pictures, not classes; LFWPeople has the persons as classes",
    "LSUN": "it is kept in lmdb databases; write its pictures to a folder for each class and give that",
}
"""Sets that are not read, and why."""


def torchvision_set(name: str, variant: str | None) -> tuple[TorchvisionSet, str]:
    """The set of a name and the variant of it that is meant. Raises ConfigError with the valid ones."""
    if name in REFUSED:
        raise ConfigError(f"name: {name} is not read: {REFUSED[name]}")
    if name == "CelebA":
        if variant is None:
            raise ConfigError(
                "CelebA has forty attributes; say which of them is the class, for example `variant: Smiling`"
            )
        return _celeba(variant), variant
    if name not in SETS:
        by_letters = {known.lower(): known for known in (*SETS, "CelebA")}
        meant = by_letters.get(name.replace("_", "").replace("-", "").lower())
        hint = f"did you mean {meant!r}?" if meant else closest(name, list(by_letters.values()))
        raise ConfigError(f"name: torchvision has no classification set {name!r}; {hint}")
    of_name = SETS[name]
    chosen = next(iter(of_name.variants)) if variant is None else variant
    if chosen not in of_name.variants:
        if "" in of_name.variants:
            raise ConfigError(f"variant: {name} has only one; leave `variant` out")
        raise ConfigError(f"variant: {name} has no {chosen!r}; {closest(chosen, list(of_name.variants))}")
    return of_name, chosen
