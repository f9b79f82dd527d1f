from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from stresslens.core.data import Data, Split
from stresslens.core.errors import ConfigError, DataError, naming
from stresslens.core.text import repeated_words
from stresslens.core.types import Count, NonNegative, Seed
from stresslens.plugins.datasets._array_files import (
    CLASS_NAMES,
    ArrayFiles,
    Channels,
    Part,
    array_files,
    class_names,
    labels_of,
    parts_of,
    pictures,
)
from stresslens.plugins.datasets._division import Division, data_of_arrays


def npz(
    *,
    path: str,
    image: str | dict[str, str] | None = None,
    label: str | dict[str, str] | None = None,
    channels: Channels = "auto",
    classes: list[str] | None = None,
    names: list[str] | None = None,
    test: NonNegative | None = None,
    validation: NonNegative | None = None,
    subset: Count | None = None,
    seed: Seed = 42,
) -> Data:
    """Arrays of pictures and labels: an npz file, or npy files in one folder.

    `path` is an npz file, a folder of npy files, or the npy file of the pictures, whose labels lie
    beside it. It is relative to the working folder. Arrays are found by their names: train_images and
    train_labels (MedMNIST), x_train and y_train, images and labels, x and y, with train, val and test
    for parts. Otherwise `image` and `label` name them: {train: NAME, test: NAME}, or one name.

    Pictures are (N,H,W), (N,C,H,W) or (N,H,W,C), uint8 with 255 for white, or floats in [0,1];
    `channels: first` or `last` is needed where the shape does not say it. Labels are whole numbers,
    words or one-hot rows. `names` are the names of the classes 0, 1, …; by default those in an array
    of text called class_names, or else the labels themselves.

    Parts are those of the arrays; `test`, `validation`, `subset` and `classes` are as for the dataset
    `folder`. The arrays are held in memory. Raises ConfigError for options that do not fit the file,
    and DataError for arrays that hold no pictures or no classes.
    """
    source = Path(path).expanduser()
    if source.suffix == ".npy":
        if not source.exists():
            raise DataError(f"there is no {source} (working folder: {Path.cwd()})")
        image = source.stem if image is None else image
        source = source.parent
    files = array_files(source)
    parts = parts_of(files, _without_suffix(image), _without_suffix(label))
    named = names or class_names(files)
    numbered, every = labels_of(files, parts, named)
    if names is not None and repeated_words(names):
        raise ConfigError(f"names: each class needs its own name; got {', '.join(names)}")
    given = {part: _split(files, each, numbered[part], channels) for part, each in parts.items()}
    title = Path(path).expanduser().resolve().name
    data = data_of_arrays(given, title, Division(test, validation, subset, seed), every, classes=classes)
    used = {name for each in parts.values() for name in each}
    left = [name for name in files.shapes if name not in used and name.lower() not in CLASS_NAMES]
    note = (f"arrays that were left out: {', '.join(left)}",) if left else ()
    return replace(data, notes=(*note, *data.notes))


def _without_suffix(names: str | dict[str, str] | None) -> str | dict[str, str] | None:
    if isinstance(names, dict):
        return {part: name.removesuffix(".npy") for part, name in names.items()}
    return None if names is None else names.removesuffix(".npy")


def _split(files: ArrayFiles, part: Part, labels: torch.Tensor, channels: Channels) -> Split:
    x = pictures(files, part.pictures, channels)
    with naming(f"{files.where}: {part.pictures} and {part.labels}"):
        return Split(x, labels, 255.0 if x.dtype == torch.uint8 else 1.0).in_range()
