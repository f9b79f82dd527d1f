"""What `sl.explain` returns."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from stresslens.charts.chart import Chart, card_with_charts
from stresslens.core.cards import sentences
from stresslens.core.colormaps import coloured, limit_of
from stresslens.core.errors import ConfigError, Notice, ends_at_caller
from stresslens.core.panels import Grid, Picture, image_pixels
from stresslens.core.tables import ResultTable, Tabular
from stresslens.core.text import counted
from stresslens.core.thumbnails import reduced
from stresslens.core.types import Estimate
from stresslens.explanation.svg import grid_drawing

COLUMNS = 8
"""Images in a row of a plot."""
SHOWN, SMALL, LARGE = 6, 64, 224
"""Images in a card; the longest side of a picture in a card and in a plot, in pixels."""

MEANS = 4
"""Means in the line that stands for all quality checks."""


class QualityChecks(dict[str, Any]):
    """The quality checks of maps as a dictionary of plain values, which shows itself in one line: "checks"
    (the means with their intervals), "each" (the values of every image) and "failed" (in words)."""

    def __repr__(self) -> str:
        means = [f"{name} {Estimate.from_json(e).value:.3g}" for name, e in self.get("checks", {}).items()]
        shown = ", ".join(means[:MEANS]) + (", …" if len(means) > MEANS else "")
        failed = len(self.get("failed", ()))
        return f"QualityChecks({counted(len(means), 'check')}, {failed} failed: {shown}; {', '.join(self)})"


@dataclass(frozen=True, repr=False)
class Explanation(Tabular):
    """Attribution maps (N, H, W) float32 for the classes `answers` (N,).

    `signed`: values below 0 speak against the class. `quality` holds the checks with their intervals and
    what the maps fail; None where they were not asked for. `images` (N, C, H, W) float in [0, 1] are
    those that were explained, `classes` the names of the model's classes, `explainer` the plug-in and
    `truths` (N,) the true classes, as far as they are known."""

    maps: np.ndarray
    answers: np.ndarray
    signed: bool
    unit: str
    notes: tuple[str, ...]
    quality: dict[str, Any] | None
    images: np.ndarray | None = None
    classes: Sequence[str] | None = None
    explainer: str = ""
    truths: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.quality is not None:
            object.__setattr__(self, "quality", QualityChecks(self.quality))

    def __repr__(self) -> str:
        size = " × ".join(map(str, self.maps.shape[1:]))
        failed = f", failing {counted(len(self.failed), 'check')}" if self.failed else ""
        return f"Explanation({self.explainer or 'maps'} of {len(self.maps):,} images, {size}{failed})"

    def _repr_html_(self) -> str:
        lead = f"{self.explainer or 'Attribution'}: what speaks for the answers on {len(self.maps):,} images"
        checks = self._checks().html() if self.quality else ""
        n = len(self.maps)
        below = "Under each image: the class that is explained"
        below += ", after the true class where they differ." if self.truths is not None else "."
        some = f" The first {SHOWN} of {n:,} images; plot({n}) shows all." if n > SHOWN else ""
        told = sentences([*self.failed, *self.notes], 4)
        return card_with_charts(lead, self._chart(SHOWN, SMALL), below + some, told, checks)

    @property
    def failed(self) -> list[str]:
        """The quality checks that the maps fail, in words; empty where none was asked for."""
        return list((self.quality or {}).get("failed", []))

    @ends_at_caller
    def plot(self, images: int = COLUMNS) -> Chart:
        """The first `images` images with the classes that are explained, and below each its map; all maps
        have one colour scale. The chart's numbers are those of `to_frame`. Raises ConfigError for fewer
        than one image."""
        if images < 1:
            raise ConfigError(f"images is {images}; expected 1 or more")
        return self._chart(images, LARGE)

    def _chart(self, images: int, side: int) -> Chart:
        """As `plot`, with pictures of at most `side` pixels a side."""
        n = min(images, len(self.maps))
        limit = limit_of(self.maps[:n])
        maps = coloured(self.maps[:n], limit, signed=self.signed)
        above = None if self.images is None else image_pixels(torch.from_numpy(self.images[:n]))
        rows: list[list[Picture | None]] = []
        for start in range(0, n, COLUMNS):
            here = range(start, min(start + COLUMNS, n))
            names = [self._caption(k) for k in here]
            if above is not None:
                rows.append([Picture(reduced(above[k], side), name) for k, name in zip(here, names)])
            rows.append(
                [
                    Picture(reduced(maps[k], side), "" if above is not None else name)
                    for k, name in zip(here, names)
                ]
            )
        grid = Grid("", rows, scale=(-limit if self.signed else 0.0, limit))
        drawing, width, height = grid_drawing(grid, self.unit)
        title = f"{self.explainer or 'Attribution maps'}: images, and what speaks for the class under each"
        return Chart(title, f'<g font-size="11">{drawing}</g>', width, height, self._table().rows[:n])

    def _caption(self, k: int) -> str:
        answer, truth = self._name(self.answers[k]), self._truth(k)
        return answer if truth in (None, answer) else f"{truth} → {answer}"

    def _truth(self, k: int) -> str | None:
        return None if self.truths is None else self._name(self.truths[k])

    def _name(self, number: int) -> str:
        return self.classes[number] if self.classes and number < len(self.classes) else str(number)

    def _table(self) -> ResultTable:
        each = (self.quality or {}).get("each", {})
        known = () if self.truths is None else ("truth",)
        columns = ("image", "class", *known, "lowest", "highest", *each)
        values = zip(*each.values()) if each else [()] * len(self.maps)
        return ResultTable(
            columns,
            [
                (
                    *(k, self._name(self.answers[k]), *(self._truth(k) for _ in known)),
                    *(float(m.min()), float(m.max()), *of_image),
                )
                for k, (m, of_image) in enumerate(zip(self.maps, values))
            ],
        )

    def _checks(self) -> ResultTable:
        checks = (self.quality or {}).get("checks", {})
        return ResultTable(("check", "mean"), [(name, Estimate.from_json(e)) for name, e in checks.items()])

    @property
    def worth(self) -> dict[str, Any] | None:
        """The name of `quality` in version 0.1.0."""
        warnings.warn("Explanation.worth is now quality; the old name still works", Notice, stacklevel=2)
        return self.quality
