"""Experiment trackers: the interface, and the entries that a run logs (scalars, images, …)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

Pixels = NDArray[np.uint8]
"""Images (N, H, W, 3), or one (H, W, 3), from 0 to 255."""


@dataclass(frozen=True)
class Scalars:
    """Values by name, at iteration `at` (the number of batches so far) or epoch `at` (from 1)."""

    by: Literal["step", "epoch"]
    at: int
    values: Mapping[str, float]


@dataclass(frozen=True)
class Histogram:
    """The number of values in each bin: (B,) counts, (B + 1,) ascending edges."""

    counts: NDArray[np.int64]
    edges: NDArray[np.float64]


@dataclass(frozen=True)
class Histograms:
    """The weights after an epoch, by the parameter's name."""

    epoch: int
    of: Mapping[str, Histogram]


@dataclass(frozen=True)
class Text:
    """Markdown with a name, for example the configuration or the header of the study."""

    name: str
    markdown: str


@dataclass(frozen=True)
class Graph:
    """The trained model on the CPU, in evaluation mode, and images (1, C, H, W) in [0, 1] that it
    takes."""

    model: nn.Module
    example: Tensor


@dataclass(frozen=True)
class Pictures:
    """Images (N, H, W, 3) with a name, each with a caption of its true and predicted class."""

    name: str
    pixels: Pixels
    captions: tuple[str, ...]


@dataclass(frozen=True)
class Figure:
    """A figure (H, W, 3) with a name: the confusion matrix of a split."""

    name: str
    pixels: Pixels


@dataclass(frozen=True)
class Embedding:
    """Features (N, D), the inputs of the last linear layer, with class and pixels of each image.

    `pixels` is (N, H, W, 3).
    """

    features: NDArray[np.float32]
    labels: tuple[str, ...]
    pixels: Pixels


@dataclass(frozen=True)
class Outcome:
    """All settings of the run by dotted name, and its scores; the last entry of a run."""

    settings: Mapping[str, bool | int | float | str]
    scores: Mapping[str, float]


Entry = Scalars | Histograms | Text | Graph | Pictures | Figure | Embedding | Outcome


class Tracker(Protocol):
    """Stores or shows the entries of one run; it ignores kinds of entries that it does not support.

    Entries come in order, each once. When an interrupted run resumes, a new tracker in an empty
    folder gets all entries up to the checkpoint again. If a tracker raises an error, the user gets
    one notice, and the run continues without the tracker.
    """

    def log(self, entry: Entry) -> None: ...

    def close(self) -> None: ...
