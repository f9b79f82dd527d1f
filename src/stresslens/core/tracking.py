"""What a tracker is, and what it is told of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

Pixels = NDArray[np.uint8]
"""Pictures (N, H, W, 3), or one (H, W, 3), from 0 to 255."""


@dataclass(frozen=True)
class Scalars:
    """Figures by name, of iteration `at` (batches shown since the start) or of epoch `at` (1 is the
    first)."""

    by: Literal["step", "epoch"]
    at: int
    values: Mapping[str, float]


@dataclass(frozen=True)
class Histogram:
    """How many values lie between each edge and the next: (B,) counts, (B + 1,) rising edges."""

    counts: NDArray[np.int64]
    edges: NDArray[np.float64]


@dataclass(frozen=True)
class Histograms:
    """The weights after an epoch, by the parameter's name."""

    epoch: int
    of: Mapping[str, Histogram]


@dataclass(frozen=True)
class Text:
    """Markdown under a name: the configuration, the head of the study."""

    name: str
    markdown: str


@dataclass(frozen=True)
class Graph:
    """The trained model on the CPU, in evaluation mode, and images (1, C, H, W) in [0, 1] that it takes."""

    model: nn.Module
    example: Tensor


@dataclass(frozen=True)
class Pictures:
    """Images (N, H, W, 3) under a name, each with a caption that gives truth and prediction."""

    name: str
    pixels: Pixels
    captions: tuple[str, ...]


@dataclass(frozen=True)
class Figure:
    """A drawing (H, W, 3) under a name: the confusion matrix of a split."""

    name: str
    pixels: Pixels


@dataclass(frozen=True)
class Embedding:
    """What the last linear layer sees, (N, D), with the class and the picture (N, H, W, 3) of each image."""

    features: NDArray[np.float32]
    labels: tuple[str, ...]
    pixels: Pixels


@dataclass(frozen=True)
class Outcome:
    """Every setting of the run by its dotted name, and what it came to: the last thing a tracker is told."""

    settings: Mapping[str, bool | int | float | str]
    scores: Mapping[str, float]


Entry = Scalars | Histograms | Text | Graph | Pictures | Figure | Embedding | Outcome


class Tracker(Protocol):
    """Keeps or shows what it is told of one run, and passes over kinds of entries that it has no use for.

    Entries come in order, each once: when an interrupted run goes on, a fresh tracker in an empty
    folder is told again what had been told up to the checkpoint. What a tracker raises is told the
    user once, and the run goes on without it.
    """

    def log(self, entry: Entry) -> None: ...

    def close(self) -> None: ...
