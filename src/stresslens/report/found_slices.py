"""Slices of low accuracy that were found by the features, with their typical images, from files alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from stresslens.evaluation.slice_record import FEATURES, FoundSlice, FoundSlices
from stresslens.report.gallery import ShownImage, class_name, read_sheet, shown_image
from stresslens.report.load import Run, examples_in

BYTES = 600_000
"""Largest size of the sheet of pictures, as text."""
PLACE = 90
"""The number of the sheet on a run's page, above those of the gallery."""


@dataclass(frozen=True)
class ShownSlice:
    """A slice with its features, classes and errors in words, and its pictures, if they can be read."""

    found: FoundSlice
    features: str
    classes: Sequence[tuple[str, int]]
    mistakes: Sequence[tuple[str, str, int]]
    pictures: Sequence[ShownImage]


@dataclass(frozen=True)
class FoundSlicesSection:
    search: FoundSlices
    slices: Sequence[ShownSlice]
    sheets: Sequence[Markup]


def found_slices_section(run: Run, split: str) -> FoundSlicesSection | None:
    """The slices of a split; None where they were not searched."""
    search = run.record.found_slices.get(split)
    if search is None:
        return None
    folder = run.folder.slices(split)
    examples = examples_in(folder) if search.slices else []
    files = {example.file for example in examples}
    sheet = read_sheet(folder, files.pop(), PLACE, BYTES) if len(files) == 1 else None
    slices = []
    for k, each in enumerate(search.slices):
        own = [example for example in examples if example.kind == f"slice {k}"]
        pictures = [shown_image(run, example, sheet, example.box) for example in own] if sheet else []
        classes = [(class_name(run, c), n) for c, n in each.classes]
        mistakes = [(class_name(run, t), class_name(run, a), n) for t, a, n in each.mistakes]
        slices.append(
            ShownSlice(each, FEATURES.get(each.features, each.features), classes, mistakes, pictures)
        )
    return FoundSlicesSection(search, slices, [sheet.rule] if sheet else [])
