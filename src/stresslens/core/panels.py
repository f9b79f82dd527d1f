"""Panels: the result of a view, made of image grids, scatter plots, lines, sentences and
figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from stresslens.core.colormaps import coloured


@dataclass(frozen=True)
class Picture:
    """Pixels (H, W) or (H, W, 3), uint8, with a caption; `wrong` marks a misclassified image."""

    pixels: NDArray[np.uint8]
    caption: str = ""
    wrong: bool = False


@dataclass(frozen=True)
class Grid:
    """Rows of pictures; an empty cell is None.

    If colours stand for numbers, `scale` is the lowest and the highest of them.
    """

    title: str
    rows: Sequence[Sequence[Picture | None]]
    row_names: Sequence[str] = ()
    column_names: Sequence[str] = ()
    scale: tuple[float, float] | None = None


@dataclass(frozen=True)
class Points:
    """Points (N, 2) in a plane, each with the name of its group; `wrong` (N,) marks mistakes."""

    title: str
    places: NDArray[np.float64]
    groups: Sequence[str]
    wrong: NDArray[np.bool_]


@dataclass(frozen=True)
class Lines:
    """Named lines, each a sequence of points (x, y)."""

    title: str
    x_label: str
    y_label: str
    lines: Mapping[str, Sequence[tuple[float, float]]]


@dataclass(frozen=True)
class Panel:
    """The result of a view: its parts, sentences (`said`), and figures (`facts`, plain values)."""

    parts: Sequence[Grid | Points | Lines]
    said: Sequence[str] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)


def image_pixels(x: Tensor) -> NDArray[np.uint8]:
    """Images (N, C, H, W) in [0, 1] as uint8 (N, H, W), or (N, H, W, 3) with three channels.

    Of images with neither one nor three channels, the first channel is taken.
    """
    shown = x if x.shape[1] == 3 else x[:, :1]
    pixels = shown.detach().float().cpu().clamp(0, 1).mul(255).round().byte().permute(0, 2, 3, 1).numpy()
    return pixels if shown.shape[1] == 3 else pixels[..., 0]


def number_pixels(values: NDArray[np.floating]) -> tuple[NDArray[np.uint8], tuple[float, float]]:
    """(…, 3) colours of numbers on one scale, and the ends of the scale.

    The scale begins at 0, or is symmetric about 0 if there are negative numbers.
    """
    limit, signed = float(np.abs(values).max(initial=0.0)), bool((values < 0).any())
    return coloured(values, limit, signed=signed), (-limit if signed else 0.0, limit)
