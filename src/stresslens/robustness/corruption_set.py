"""Published sets of corrupted images: CIFAR-10-C (npy files) and ImageNet-C (folders), as evaluation
data."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from stresslens.core.arrays import as_shaped
from stresslens.core.errors import DataError, first_line
from stresslens.core.image_files import Frame, Unreadable, decode, quietly, read_image
from stresslens.core.image_formats import hidden, is_image
from stresslens.core.sampling import sampled_positions
from stresslens.core.types import Shape
from stresslens.robustness.corrupt import BATCH, SEVERITIES, answers_of


@dataclass(frozen=True)
class CorruptionSet:
    """The same n images under every corruption at every severity."""

    name: str
    corruptions: Sequence[str]
    labels: NDArray[np.int64]
    """(n,) class numbers of the model."""
    read: Callable[[str, int, NDArray[np.int64]], Tensor]
    """The images at these positions under a corruption at a severity, (m,C,H,W) uint8."""
    notes: tuple[str, ...] = ()


def corruption_set(path: Path, classes: Sequence[str], shape: Shape, frame: Frame | None) -> CorruptionSet:
    """The set in a folder, for a model of these classes and of images of `shape`.

    A folder with labels.npy is read as CIFAR-10-C, any other as ImageNet-C: a folder for each
    corruption, in it 1 to 5, in these the class folders. `frame` says how image files are fitted; None
    where the model takes no image files. Raises DataError for files that are not of either form, or not
    for this model.
    """
    if not path.is_dir():
        raise DataError(f"there is no folder {path} (working folder: {Path.cwd()})")
    if (path / "labels.npy").is_file():
        return _of_arrays(path, classes, shape)
    if frame is None:
        raise DataError(f"{path}: the model takes images of {shape[0]} channels, which no image file has")
    return _of_folders(path, classes, frame)


def wrong_answers(
    models: Sequence[nn.Module],
    images: CorruptionSet,
    *,
    asked: int | None = None,
    device: torch.device | str = "cpu",
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> NDArray[np.bool_]:
    """(models, corruptions, severities, n) whether the answer is wrong, for `asked` images drawn at random,
    or all, which are read once for all models; no answer is wrong."""
    rows = sampled_positions(len(images.labels), asked or "all", 0).numpy()
    wrong = np.zeros((len(models), len(images.corruptions), len(SEVERITIES), len(rows)), bool)
    total = len(images.corruptions) * len(SEVERITIES)

    def batches(corruption: str, severity: int) -> Iterator[Tensor]:
        for start in range(0, len(rows), BATCH):
            pixels = images.read(corruption, severity, rows[start : start + BATCH])
            yield pixels.to(device).float() / 255

    for c, corruption in enumerate(images.corruptions):
        for s, severity in enumerate(SEVERITIES):
            on_progress(c * len(SEVERITIES) + s, total)
            wrong[:, c, s] = answers_of(models, batches(corruption, severity)) != images.labels[rows]
    on_progress(total, total)
    return wrong


# --- CIFAR-10-C ---------------------------------------------------------------------------------------------


def _of_arrays(path: Path, classes: Sequence[str], shape: Shape) -> CorruptionSet:
    labels = _array(path / "labels.npy")
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or not len(labels) or len(labels) % len(SEVERITIES):
        raise DataError(
            f"{path / 'labels.npy'} has the shape {labels.shape} of {labels.dtype}; expected whole numbers, "
            "the same for each of five severities"
        )
    by_severity = np.asarray(labels).reshape(len(SEVERITIES), -1)
    if (by_severity != by_severity[0]).any():
        raise DataError(f"{path / 'labels.npy'}: the labels differ between the five severities")
    if int(labels.min()) < 0 or int(labels.max()) >= len(classes):
        raise DataError(
            f"{path / 'labels.npy'} has labels from {labels.min()} to {labels.max()}, and the model has "
            f"{len(classes)} classes ({', '.join(classes[:5])}, …)"
        )
    arrays = [file for file in sorted(path.glob("*.npy")) if not hidden(file.name)]
    files = {file.stem: _array(file) for file in arrays if file.stem != "labels"}
    if not files:
        raise DataError(f"{path} holds labels.npy and no corruption; expected gaussian_noise.npy and others")
    n = len(by_severity[0])
    for name, pixels in files.items():
        _check_pixels(path / f"{name}.npy", pixels, len(labels), shape)

    def read(corruption: str, severity: int, rows: NDArray[np.int64]) -> Tensor:
        return as_shaped(np.asarray(files[corruption][(severity - 1) * n + rows]), shape, corruption)

    notes = ("classes are taken by their numbers, 0 is " + classes[0],)
    return CorruptionSet(path.resolve().name, list(files), by_severity[0].astype(np.int64), read, notes)


def _array(file: Path) -> NDArray[np.uint8]:
    """An array that is read from disk where it is indexed."""
    try:
        found: NDArray[np.uint8] = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{file} cannot be read ({first_line(error)}); download it again") from error
    return found


def _check_pixels(file: Path, pixels: NDArray[np.uint8], n: int, shape: Shape) -> None:
    """Raises DataError for an array that is not of the labels' images and of the model's shape."""
    if len(pixels) != n or pixels.dtype != np.uint8 or pixels.ndim not in (3, 4):
        raise DataError(
            f"{file} has the shape {pixels.shape} of {pixels.dtype}; expected {n:,} images of uint8, as many "
            "as labels.npy"
        )
    found = (1, *pixels.shape[1:]) if pixels.ndim == 3 else pixels.shape[1:]
    if tuple(shape) not in (found, (found[2], *found[:2])):
        raise DataError(
            f"{file} has images of the shape {found}, and the model takes {tuple(shape)} (channels, height, "
            "width), or the same with channels last"
        )


# --- ImageNet-C ---------------------------------------------------------------------------------------------


def _of_folders(path: Path, classes: Sequence[str], frame: Frame) -> CorruptionSet:
    folders = _corruption_folders(path, "*/1") or _corruption_folders(path, "*/*/1")
    if not folders:
        raise DataError(
            f"{path} is no set of corrupted images: it needs labels.npy and files as gaussian_noise.npy "
            "(CIFAR-10-C), or folders as gaussian_noise/1/CLASS (ImageNet-C)"
        )
    names: list[str] = []
    for name, folder in folders.items():
        for severity in SEVERITIES:
            found = _files(folder / str(severity))
            names = names or found
            if found != names:
                odd = sorted(set(found) ^ set(names))
                raise DataError(
                    f"{folder / str(severity)} has other images than {next(iter(folders))}/1: "
                    f"{len(odd)} differ, first {odd[0] if odd else found[:1]}; each corruption and severity "
                    f"needs the same ones ({name})"
                )
    if not names:
        raise DataError(f"{path} holds no image files in class folders")
    of_images = [name.split("/")[0] for name in names]
    numbers, notes = _class_numbers(path, sorted(set(of_images)), classes)

    def pixels(file: Path) -> NDArray[np.uint8]:
        try:
            return decode(read_image(str(file)), frame).pixels
        except (Unreadable, OSError) as error:
            raise DataError(f"{file} cannot be read as an image: {error}") from None

    def read(corruption: str, severity: int, rows: NDArray[np.int64]) -> Tensor:
        below = folders[corruption] / str(severity)
        with quietly(), ThreadPoolExecutor(torch.get_num_threads()) as pool:
            return torch.from_numpy(np.stack(list(pool.map(pixels, (below / names[row] for row in rows)))))

    labels = np.array([numbers[name] for name in of_images], np.int64)
    return CorruptionSet(path.resolve().name, list(folders), labels, read, notes)


def _corruption_folders(path: Path, first: str) -> dict[str, Path]:
    """The folder of each corruption, by the place of its first severity: directly in the set, or in a folder
    of a kind of corruptions (noise, blur, …). Class folders may be called 1 too, and lie below."""
    found = (each.parent for each in sorted(path.glob(first)) if each.is_dir())
    return {
        folder.name: folder
        for folder in found
        if not any(hidden(part) for part in folder.relative_to(path).parts)
    }


def _files(folder: Path) -> list[str]:
    """The image files in the class folders of a folder, as CLASS/FILE, sorted."""
    if not folder.is_dir():
        raise DataError(f"there is no {folder}; each corruption needs the severities 1 to 5")
    of_classes = [each for each in folder.iterdir() if each.is_dir() and not hidden(each.name)]
    return sorted(
        f"{each.name}/{file.name}"
        for each in of_classes
        for file in each.iterdir()
        if is_image(file.name) and not hidden(file.name)
    )


def _class_numbers(
    path: Path, folders: Sequence[str], classes: Sequence[str]
) -> tuple[dict[str, int], tuple[str, ...]]:
    """The model's class of each class folder: that of the same name (or with its WordNet id), or else the
    one at the same place, if there are as many."""
    by_name = {name: k for k, name in enumerate(classes)}
    by_name |= {found[1]: k for k, name in enumerate(classes) if (found := re.search(r"\((n\d{8})\)$", name))}
    if all(folder in by_name for folder in folders):
        return {folder: by_name[folder] for folder in folders}, ()
    if len(folders) == len(classes):
        note = f"the class folders are taken in their order: {folders[0]} is {classes[0]}"
        return {folder: k for k, folder in enumerate(folders)}, (note,)
    unknown = [folder for folder in folders if folder not in by_name]
    raise DataError(
        f"{path} has {len(folders)} class folders, and {unknown[0]} is no class of the model, which has "
        f"{len(classes)} ({', '.join(classes[:5])}, …)"
    )
