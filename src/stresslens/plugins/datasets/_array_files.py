"""Arrays of pictures and labels in npz and npy files, found by their names."""

from __future__ import annotations

import os
import re
import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stresslens.core.arrays import image_values, numbers, place_of_channels
from stresslens.core.errors import ConfigError, DataError, first_line, naming
from stresslens.core.labels import named_labels
from stresslens.core.spelling import closest
from stresslens.plugins.datasets._class_folders import PARTS, sources_of_parts

PICTURES = {"x", "image", "images", "img", "imgs", "picture", "pictures", "pixels", "data", "input", "inputs"}
LABELS = {"y", "label", "labels", "target", "targets", "class"}
CLASS_NAMES = {"classes", "class_names", "label_names", "target_names"}
Channels = Literal["auto", "first", "last"]
Names = str | Mapping[str, str]
"""The name of the array of all pictures, or its name by part."""


class ArrayFiles(NamedTuple):
    """The arrays of a file, or of the npy files of a folder, which are read when they are asked for."""

    where: Path
    shapes: Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]]

    def read(self, name: str) -> NDArray[Any]:
        """Raises DataError if the array cannot be read."""
        try:
            if self.where.is_dir():
                return np.asarray(np.load(self.where / f"{name}.npy", allow_pickle=False))
            with np.load(self.where, allow_pickle=False) as arrays:
                return np.asarray(arrays[name])
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, MemoryError) as error:
            raise DataError(
                f"{self.where}: {name} cannot be read ({first_line(error)}); write it anew"
            ) from error


def array_files(path: Path) -> ArrayFiles:
    """The arrays in an npz file, or in the npy files of a folder. No array is read, only its header.

    Raises DataError for another file, one that is damaged, arrays of Python objects, and arrays that
    do not fit into memory.
    """
    if not path.exists():
        here = "" if path.is_absolute() else f" (working folder: {Path.cwd()})"
        raise DataError(f"there is no {path}{here}")
    try:
        shapes = dict(_of_folder(path) if path.is_dir() else _of_npz(path))
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, SyntaxError) as error:
        raise DataError(f"{path} is no npz file, or it is damaged ({first_line(error)})") from error
    if not shapes:
        raise DataError(f"{path} holds no arrays" + (" (files that end in .npy)" if path.is_dir() else ""))
    return ArrayFiles(path, shapes)


def _of_npz(path: Path) -> Iterator[tuple[str, tuple[tuple[int, ...], np.dtype[Any]]]]:
    if not zipfile.is_zipfile(path):
        raise ValueError("it is not a zip archive")
    with zipfile.ZipFile(path) as archive:
        for member in archive.namelist():
            if member.endswith(".npy"):
                with archive.open(member) as file:
                    yield member.removesuffix(".npy"), _header(file, f"{path}: {member}")


def _of_folder(path: Path) -> Iterator[tuple[str, tuple[tuple[int, ...], np.dtype[Any]]]]:
    for file in sorted(path.glob("*.npy")):
        with file.open("rb") as opened:
            yield file.stem, _header(opened, str(file))


def _header(file: Any, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """The shape and the type of an array. Raises DataError where there is none."""
    try:
        version = np.lib.format.read_magic(file)
        read = (
            np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        )
        shape, _, dtype = read(file)
    except (ValueError, SyntaxError) as error:
        raise DataError(
            f"{name} is no array, or it is damaged ({first_line(error)}); write it anew"
        ) from error
    if dtype.hasobject:
        raise DataError(
            f"{name} holds Python objects, which could run code when they are loaded; save numbers or "
            "text: np.asarray(values.tolist())"
        )
    return shape, dtype


class Part(NamedTuple):
    """Names of the arrays of a part: pictures and labels."""

    pictures: str
    labels: str


def parts_of(files: ArrayFiles, images: Names | None, labels: Names | None) -> dict[str | None, Part]:
    """The arrays of each part, by their names or as `image` and `label` say; under None those of all
    pictures. Raises ConfigError for names that are not there, and DataError where the names say nothing
    or too much."""
    pictures = _named(files, PICTURES, images, "image")
    given = _named(files, LABELS, labels, "label")
    arrays = ", ".join(f"{name} {shape}" for name, (shape, _) in files.shapes.items())
    if not pictures or not given:
        what, option = ("pictures", "image") if not pictures else ("labels", "label")
        raise DataError(
            f"{files.where}: no array is called as {what} usually are; say which: `{option}: NAME`, or "
            f"`{option}: {{train: NAME, test: NAME}}` (arrays: {arrays})"
        )
    for part in dict.fromkeys((*pictures, *given)):
        if part not in pictures or part not in given:
            there, lacks = ("pictures", "labels") if part in pictures else ("labels", "pictures")
            of_part = "all images" if part is None else f"the part {part}"
            raise DataError(
                f"{files.where}: {of_part} has {there} and no {lacks}; say which arrays they are with "
                f"`image` and `label` (arrays: {arrays})"
            )
    if None in pictures and len(pictures) > 1:
        raise DataError(
            f"{files.where} has arrays of parts ({', '.join(filter(None, pictures))}) and {pictures[None]} "
            "beside them; say which count, with `image` and `label`"
        )
    return {part: Part(name, given[part]) for part, name in pictures.items()}


def _named(files: ArrayFiles, usual: set[str], names: Names | None, option: str) -> dict[str | None, str]:
    """The array of each part among those with usual names, or those that the user names."""
    if names is not None:
        chosen: dict[str | None, str] = (
            {None: names} if isinstance(names, str) else sources_of_parts(names, option)
        )
        for name in chosen.values():
            if name not in files.shapes:
                raise ConfigError(
                    f"{option}: {files.where} has no array {name!r}; {closest(name, list(files.shapes))}"
                )
        return chosen
    found: dict[str | None, str] = {}
    for name in files.shapes:
        kind, part = _kind_and_part(name)
        if kind not in usual:
            continue
        if part in found:
            raise DataError(
                f"{files.where}: {found[part]} and {name} may both be meant by {option}; say which: "
                f"`{option}: {name}`"
            )
        found[part] = name
    unnamed = "arr_1" if option == "label" else "arr_0"  # of numpy.savez(file, images, labels)
    return found or ({None: unnamed} if unnamed in files.shapes else {})


def _kind_and_part(name: str) -> tuple[str, str | None]:
    """What an array holds and its part, by a name such as x_train, train_images or testY."""
    plain = name.lower()
    part = "|".join(sorted(PARTS, key=len, reverse=True))
    first, last = re.match(rf"({part})[ _.-]*(.+)", plain), re.match(rf"(.+?)[ _.-]*({part})$", plain)
    if first is not None:
        return first[2], PARTS[first[1]]
    if last is not None:
        return last[1], PARTS[last[2]]
    return plain, None


def pictures(files: ArrayFiles, name: str, channels: Channels) -> Tensor:
    """The pictures of an array (N,H,W), (N,C,H,W) or (N,H,W,C) as (N,C,H,W), uint8 or float.

    Raises DataError for an array that holds no pictures, or whose shape does not say where its
    channels are.
    """
    shape, dtype = files.shapes[name]
    where = f"{files.where}: {name}"
    if len(shape) not in (3, 4) or dtype.kind not in "buif":
        raise DataError(
            f"{where} has the shape {shape} of {dtype}, which are no pictures; expected numbers of shape "
            "(N, height, width), or with channels first or last; name another array with `image`"
        )
    if 0 in shape:
        raise DataError(f"{where} is empty: its shape is {shape}")
    _check_memory(where, shape, dtype)
    place = "first" if len(shape) == 3 else channels if channels != "auto" else place_of_channels(*shape[1:])
    if place == "unknown":
        raise DataError(
            f"{where} has the shape {shape}, which does not say whether the channels are first "
            "(N, C, H, W) or last (N, H, W, C); set `channels: first` or `channels: last`"
        )
    with naming(where):
        x = image_values(numbers(files.read(name), "pictures"))
    if x.ndim == 3:
        return x[:, None]
    return x.permute(0, 3, 1, 2).contiguous() if place == "last" else x


def _check_memory(where: str, shape: Sequence[int], dtype: np.dtype[Any]) -> None:
    """Raises DataError for an array larger than the computer's memory: the header may say anything."""
    size = dtype.itemsize * int(np.prod(shape, dtype=object))
    if sys.platform == "win32":  # which does not say how much there is
        return
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if size > memory:
        raise DataError(
            f"{where} takes {size / 1e9:,.0f} GB, and this computer has {memory / 1e9:.0f} GB memory; "
            "write the pictures as files, which are read from disk ({folder: {path: …}})"
        )


def class_names(files: ArrayFiles) -> list[str] | None:
    """The names of the classes, if an array of text has them."""
    for name, (shape, dtype) in files.shapes.items():
        if name.lower() in CLASS_NAMES and dtype.kind in "US" and len(shape) == 1:
            return [str(each) for each in files.read(name).astype(str).tolist()]
    return None


def labels_of(
    files: ArrayFiles, parts: Mapping[str | None, Part], names: Sequence[str] | None
) -> tuple[dict[str | None, Tensor], tuple[str, ...]]:
    """Class numbers of each part, and the names of the classes: those of `names`, or else the labels.

    Raises DataError for labels that are no classes.
    """
    found = {part: _one_axis(files, each.labels) for part, each in parts.items()}
    first = next(iter(parts.values())).labels
    with naming(f"{files.where}: {first}"):
        try:
            whole = np.concatenate(list(found.values()))
        except ValueError as error:
            raise DataError(f"labels of the parts differ in form ({first_line(error)})") from error
        numbered, named = named_labels(whole, names)
    sizes = [len(each) for each in found.values()]
    return dict(zip(found, torch.split(numbered, sizes))), named


def _one_axis(files: ArrayFiles, name: str) -> NDArray[Any]:
    shape, dtype = files.shapes[name]
    if not shape:
        raise DataError(f"{files.where}: {name} is a single value; expected a label for each picture")
    several = len(shape) == 2 and shape[1] > 1
    values = files.read(name)
    if several and dtype.kind in "buif" and not (np.count_nonzero(values, axis=1) == 1).all():
        raise DataError(
            f"{files.where}: {name} has {shape[1]} values for each picture, which are not one class each; a "
            "classifier here gives one class. Choose one of the columns and save it as labels"
        )
    return values
