"""Shared by models that other software made: how images are prepared for them, and how their files are
read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from stresslens.core.errors import ConfigError, DataError
from stresslens.core.layers import Normalize
from stresslens.core.pretrained import Preprocessing
from stresslens.core.types import Shape

Moments = tuple[float, ...]
"""A number for each channel."""
Side = int | tuple[int, int]
"""The height and width of images in pixels, or one number for both."""


def preparation_of(
    *,
    shape: Shape,
    mean: Moments | None,
    std: Moments | None,
    scale: float,
    size: Side | None,
    channels: int | None = None,
) -> Preprocessing:
    """How images of a shape (C, H, W) in [0, 1] become those that a model was made for: resized to `size`,
    and then (x - mean) / std · scale. Grey images are repeated to the channels of the model.

    Raises ConfigError where the numbers of means, deviations and channels differ.
    """
    counts = {len(values) for values in (mean, std) if values is not None}
    counts |= set() if channels is None else {channels}
    wanted = next(iter(counts), shape[0])
    if len(counts) > 1 or (wanted != shape[0] and shape[0] != 1):
        taken, said = " or ".join(map(str, sorted(counts))), f"mean {list(mean or [])}, std {list(std or [])}"
        raise ConfigError(f"the model takes {taken} channels ({said}), and the images have {shape[0]}")
    if std is not None and min(std) <= 0:
        raise ConfigError(f"std {list(std)}: a standard deviation is above 0")
    normalize = Normalize.by_moments(mean or [0.0] * wanted, std or [1.0] * wanted, scale)
    height, width = (size, size) if isinstance(size, int) else size or shape[1:]
    return Preprocessing((wanted, height, width), normalize)


def existing(file: str, what: str) -> Path:
    """The path of a model's file. Raises DataError where there is none."""
    path = Path(file)
    if path.is_dir():
        raise DataError(f"{path} is a folder; expected {what}")
    if not path.is_file():
        raise DataError(f"there is no file {path}; expected {what}")
    if not path.stat().st_size:
        raise DataError(f"{path} is empty; expected {what}")
    return path


def trust_in(trusted: bool, file: str, why: str) -> None:
    """Raises ConfigError for a file that holds code, unless the user says that it may run."""
    if not trusted:
        raise ConfigError(
            f"{file}: {why}, so opening it can run any code that its author put into it. If it is yours, or "
            "you trust its author, say so: model.trusted=true (or --trust with evaluate). An ONNX "
            "file holds no code"
        )


def fixed(sizes: Sequence[object]) -> tuple[int | None, ...]:
    """The sizes of a model's input that are numbers; None for those that may vary."""
    return tuple(size if type(size) is int and size > 0 else None for size in sizes)


def on_cpu() -> torch.device:
    """Where files are read, also while a net is built without numbers (on the device meta)."""
    return torch.device("cpu")
