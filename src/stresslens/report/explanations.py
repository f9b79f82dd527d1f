"""Attribution maps of the same images by several explainers or of several models, with their
quality."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from stresslens.core.colormaps import bar, coloured, limit_of
from stresslens.core.files import UnreadableRun
from stresslens.core.format import plugin_text
from stresslens.core.thumbnails import image_address
from stresslens.core.types import Estimate
from stresslens.explanation.map_file import MAP_ARRAYS, ExplainedImage, ExplanationFile, Quality
from stresslens.report.gallery import class_name
from stresslens.report.load import Run, StudyFolder

SIDE = 96
"""Pixels of the longer side of a shown image; small ones are magnified by a whole number."""
IMAGES = 10
MODELS = 8
"""Largest number of models side by side."""
CHECKS = {
    "deletion": "How much sooner the output falls when pixels are covered from the map's highest value "
    "down, compared with random order",
    "insertion": "How much sooner the output rises when pixels are uncovered in that order, compared "
    "with random order",
    "infidelity": "The share of the output change from covering squares that the map does not explain",
    "sensitivity": "The change of the map, as a share of its size, when pixels change by at most 0.02",
    "randomisation": "Rank correlation with the map of a model whose weights were shuffled, where the maps "
    "are not both zero",
    "shuffled pixels": "How much more of the output change the map explains than its own values in random "
    "places",
    "another image": "The same, compared with the map of another image",
    "another class": "The same, compared with the map for another class",
    "shuffled weights": "The same, compared with the map of a model whose weights were shuffled",
    "moved": "The same, compared with the map moved, flipped, turned or given the other sign, whichever "
    "explains most",
}


@dataclass(frozen=True)
class RunExplanation:
    """A result of one run. Its arrays, if they can be read, are `maps` (n, H, W) and `shown` (n, h,
    w) or (n, h, w, 3)."""

    run: Run
    folder: Path
    result: ExplanationFile

    @property
    def label(self) -> str:
        return plugin_text(self.result.explainer, self.result.options)

    @property
    def about(self) -> tuple[Any, ...]:
        """The images that the maps explain; results with the same value are shown side by side."""
        return (self.result.split, tuple((image.index, image.source) for image in self.result.images))

    @cached_property
    def arrays(self) -> dict[str, NDArray[Any]]:
        try:
            arrays = MAP_ARRAYS.read(self.folder / "maps.npz", only=("maps", "shown"))
        except UnreadableRun:
            return {}
        n = len(self.result.images)
        valid = arrays["maps"].ndim == 3 and arrays["shown"].dtype == np.uint8
        return arrays if valid and len(arrays["maps"]) == len(arrays["shown"]) == n else {}


@dataclass(frozen=True)
class MapCell:
    """An image with its caption and, for a map, its checks."""

    picture: Markup
    said: str
    wrong: bool = False
    quality: str = ""


@dataclass(frozen=True)
class MapRow:
    """The maps of one explainer of one model, on the scale `bar` from `low` to `high`."""

    name: str
    unit: str
    cells: Sequence[MapCell]
    bar: Markup
    low: float
    high: float
    checks: dict[str, Estimate]
    failed: Sequence[str]
    notes: Sequence[str]


@dataclass(frozen=True)
class MapGroup:
    """The images, in `cells`, and rows of maps of them; `beyond` is the number of images that are
    only in the files."""

    name: str
    split: str
    cells: Sequence[MapCell]
    rows: Sequence[MapRow]
    beyond: int

    @property
    def checked(self) -> bool:
        return any(row.checks for row in self.rows)


def read_explanations(run: Run) -> list[RunExplanation]:
    """The explanations of a run that can be read, sorted by name; numbers in names sort as
    numbers."""
    readable = []
    for file in sorted((run.folder.path / "explanations").glob("*/result.json")):
        try:
            result = ExplanationFile.read(file)
        except UnreadableRun:
            continue
        explanation = RunExplanation(run, file.parent, result)
        if result.images and len(explanation.arrays):
            readable.append(explanation)
    return sorted(
        readable,
        key=lambda each: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", each.label)],
    )


def run_explanations(run: Run) -> list[MapGroup]:
    """For each selection of images, the maps of every explainer."""
    by_images: dict[tuple[Any, ...], list[RunExplanation]] = {}
    for each in read_explanations(run):
        by_images.setdefault(each.about, []).append(each)
    return [
        _group("", members, [(each.label, each, limit_of(each.arrays["maps"])) for each in members])
        for members in by_images.values()
    ]


def study_explanations(study: StudyFolder) -> list[MapGroup]:
    """For each explainer that was applied to several models on the same images, their maps side by
    side on one scale."""
    by_images: dict[tuple[Any, ...], list[RunExplanation]] = {}
    for variant in study.variants:
        for each in read_explanations(variant.finished[0]) if variant.finished else []:
            by_images.setdefault((*each.about, each.label), []).append(each)
    groups = []
    for members in by_images.values():
        if len({each.run.name for each in members}) > 1:
            limit = max(limit_of(each.arrays["maps"]) for each in members)
            rows = [(each.run.name, each, limit) for each in members[:MODELS]]
            groups.append(_group(members[0].label, members, rows))
    return groups


def _group(
    name: str, members: Sequence[RunExplanation], rows: Iterable[tuple[str, RunExplanation, float]]
) -> MapGroup:
    first = members[0]
    shown, images = first.arrays["shown"], first.result.images
    cells = [
        MapCell(_picture(shown[k]), _of_image(first.run, image)) for k, image in enumerate(images[:IMAGES])
    ]
    return MapGroup(name, first.result.split, cells, [_row(*row) for row in rows], len(images[IMAGES:]))


def _row(name: str, each: RunExplanation, limit: float) -> MapRow:
    result = each.result
    pixels = coloured(each.arrays["maps"][:IMAGES], limit, signed=result.signed)
    quality = result.quality or Quality()
    cells = [
        MapCell(
            _picture(pixels[k]),
            _of_answer(each.run, image),
            image.truth not in (None, image.predicted),
            _of_map(quality, k),
        )
        for k, image in enumerate(result.images[:IMAGES])
    ]
    scale = _picture(bar(limit, signed=result.signed, height=8))
    low = -limit if result.signed else 0.0
    return MapRow(
        name, result.unit, cells, scale, low, limit, dict(quality.checks), quality.failed, result.notes
    )


def _of_image(run: Run, image: ExplainedImage) -> str:
    return (image.source or "").rpartition("/")[2] if image.truth is None else class_name(run, image.truth)


def _of_answer(run: Run, image: ExplainedImage) -> str:
    explained = f"{class_name(run, image.answer)} {100 * image.answer_probability:.0f} %"
    return (
        explained
        if image.answer == image.predicted
        else f"{explained}; predicted {class_name(run, image.predicted)}"
    )


def _of_map(quality: Quality, k: int) -> str:
    return ", ".join(f"{name} {values[k]:.2f}" for name, values in quality.each.items() if k < len(values))


def _picture(pixels: NDArray[np.uint8]) -> Markup:
    """An image element with its pixels inside."""
    from PIL import Image

    height, width = pixels.shape[:2]
    picture = Image.fromarray(pixels)
    if max(height, width) > SIDE:
        picture.thumbnail((SIDE, SIDE))
    content = io.BytesIO()
    lossless = max(picture.size) <= 48 or height <= 8
    kind = "png" if lossless else "webp"
    picture.save(content, format=kind, **({} if lossless else {"quality": 80, "method": 2}))
    zoom = max(1, SIDE // max(picture.size))
    size = f'width="{picture.width * zoom}" height="{picture.height * zoom}"'
    return Markup(f'<img alt="" {size} src="{image_address(content.getvalue(), kind)}">')
