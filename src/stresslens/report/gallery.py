"""Example images of a run: the browser cuts them from a sheet, which is in the page once."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from markupsafe import Markup

from stresslens.core.answers import NO_ANSWER, NOT_FINITE
from stresslens.core.format import brief
from stresslens.core.thumbnails import image_address
from stresslens.evaluation.example_file import Example
from stresslens.report.load import Run

if TYPE_CHECKING:
    from PIL import Image

BYTES = 1_200_000
"""Largest size of all sheets of a page, as text."""
SIDE = 96
"""Pixels of the longer side to which an image is magnified, by a whole number."""
NAME = 40
FORMATS = ("PNG", "WEBP")
SUREST = 4
"""Mistakes at the head of a page."""

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class ShownImage:
    """`style` shows its part of a sheet; `anchor` is set on the first image of a confused pair."""

    style: Markup
    truth: str
    predicted: str
    right: bool
    probability: float
    likeliest: Sequence[tuple[str, float]]
    source: str
    pair: str
    anchor: bool
    further: bool


@dataclass(frozen=True)
class Gallery:
    sheets: Sequence[Markup]
    samples: Sequence[ShownImage]
    mistakes: Sequence[ShownImage]
    left_out: int
    pairs: frozenset[tuple[int, int]]

    @property
    def surest(self) -> SurestMistakes | None:
        """The surest mistakes, for the head of the same page."""
        return SurestMistakes(self.mistakes[:SUREST], "this run") if self.mistakes else None


def gallery(run: Run) -> Gallery | None:
    """Samples in their order, then mistakes, the most confident first. Images that cannot be shown
    are counted."""
    sheets: dict[str, Sheet | None] = {}
    room = BYTES
    shown: dict[bool, list[ShownImage]] = {False: [], True: []}
    pairs: set[tuple[int, int]] = set()
    left_out = 0
    mistakes = _mistakes(run)
    ordered = [*(example for example in run.examples if example.kind == "sample"), *mistakes]
    for example in ordered:
        if example.file not in sheets:
            read = sheets[example.file] = read_sheet(run.folder.examples, example.file, len(sheets), room)
            room -= len(read.uri) if read else 0
        sheet = sheets[example.file]
        if sheet is None:
            left_out += 1
            continue
        pair = (example.truth, example.predicted)
        mistake = example.kind != "sample"
        shown[mistake].append(
            shown_image(run, example, sheet, example.box, first=mistake and pair not in pairs)
        )
        if mistake:
            pairs.add(pair)
    rules = [sheet.rule for sheet in sheets.values() if sheet]
    return Gallery(rules, shown[False], shown[True], left_out, frozenset(pairs)) if ordered else None


@dataclass(frozen=True)
class SurestMistakes:
    """The mistakes of a run with the highest probabilities, and the run they are of (`of`), with the
    address of its page; `sheet` is the style rule of their pictures, if the page has it nowhere else."""

    pictures: Sequence[ShownImage]
    of: str
    link: str = ""
    sheet: str = ""


def surest_mistakes(run: Run, name: str, place: int, link: str) -> SurestMistakes | None:
    """The surest mistakes of a run for another page, on a sheet of their own with the number `place`;
    None without pictures of mistakes."""
    from PIL import Image

    chosen = example_images(run.folder.examples, _mistakes(run), SUREST, most=BYTES)
    if not chosen:
        return None
    across = [sum(crop.width for _, crop in chosen[:k]) for k in range(len(chosen) + 1)]
    strip = Image.new("RGBA", (across[-1], max(crop.height for _, crop in chosen)))
    for (_, crop), left in zip(chosen, across):
        strip.paste(crop, (left, 0))
    content = io.BytesIO()
    strip.save(content, "PNG")
    sheet = Sheet(place, *strip.size, image_address(content.getvalue(), "png"))
    pictures = [
        shown_image(run, example, sheet, (left, 0, *crop.size))
        for (example, crop), left in zip(chosen, across)
    ]
    return SurestMistakes(pictures, name, link, sheet.rule)


def _mistakes(run: Run) -> list[Example]:
    """The mistakes of which a run keeps the pictures, the most confident first."""
    mistakes = (example for example in run.examples if example.kind != "sample")
    return sorted(mistakes, key=lambda example: -example.probability)


def example_images(
    folder: Path, examples: Iterable[Example], n: int, *, most: float = math.inf
) -> list[tuple[Example, Image.Image]]:
    """The first `n` examples whose pictures can be read, with these; see `_example_image`. Each sheet is
    read once."""
    opened: dict[str, Image.Image | None] = {}
    cut = ((each, _example_image(folder, each, opened, most=most)) for each in examples)
    return list(islice(((each, picture) for each, picture in cut if picture is not None), n))


def _example_image(
    folder: Path, example: Example, opened: dict[str, Image.Image | None], *, most: float = math.inf
) -> Image.Image | None:
    """The pixels (RGBA) of an example, cut from its sheet. Each sheet is read once and kept in `opened`.
    None if the sheet cannot be read, as `read_sheet`, or would have more than `most` bytes as text."""
    from PIL import Image

    if example.file not in opened:
        opened[example.file] = _decoded(folder, example.file, most)
    sheet = opened[example.file]
    if sheet is None:
        return None
    left, top, width, height = example.box or (0, 0, *sheet.size)
    if width < 1 or height < 1:
        return None
    try:
        return sheet.crop((left, top, left + width, top + height)).convert("RGBA")
    except (ValueError, Image.DecompressionBombError):
        return None


def _decoded(folder: Path, name: str, most: float) -> Image.Image | None:
    from PIL import Image

    try:
        with Image.open(io.BytesIO(_content(folder, name, most)), formats=FORMATS) as sheet:
            return sheet.copy()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


@dataclass(frozen=True)
class Sheet:
    place: int
    width: int
    height: int
    uri: str

    @property
    def rule(self) -> Markup:
        return Markup(
            f".sheet{self.place}{{--w:{self.width};--h:{self.height};background-image:url({self.uri})}}"
        )

    def style(self, box: Box | None) -> Markup:
        """The attributes of an element that shows a part of the sheet."""
        return Markup(f'class="picture sheet{self.place}" style="{self.part(box)}"')

    def part(self, box: Box | None) -> Markup:
        left, top, width, height = box or (0, 0, self.width, self.height)
        zoom = max(1, SIDE // max(width, height, 1))
        return Markup(f"--z:{zoom};--x:{left};--y:{top};--pw:{width};--ph:{height}")


def shown_image(
    run: Run, example: Example, sheet: Sheet, box: Box | None, *, first: bool = False
) -> ShownImage:
    """An example with the names of its classes and the attributes that show its part of the sheet."""
    likeliest = example.probabilities or [(example.predicted, example.probability)]
    return ShownImage(
        style=sheet.style(box),
        truth=class_name(run, example.truth),
        predicted=class_name(run, example.predicted),
        right=example.truth == example.predicted,
        probability=example.probability,
        likeliest=[(class_name(run, k), p) for k, p in likeliest],
        source=example.source or "",
        pair=f"{example.truth}-{example.predicted}",
        anchor=first,
        further=example.kind == "cell",
    )


def class_name(run: Run, index: int) -> str:
    if index == NO_ANSWER:
        return NOT_FINITE
    return brief(run.classes[index], NAME) if 0 <= index < len(run.classes) else str(index)


def read_sheet(folder: Path, name: str, place: int, room: int) -> Sheet | None:
    """The sheet. None if it is missing, is not PNG or WebP, lies outside the folder of examples or
    does not fit in `room`."""
    from PIL import Image

    try:
        content = _content(folder, name, room)
        with Image.open(io.BytesIO(content), formats=FORMATS) as opened:
            kind, (width, height) = str(opened.format).lower(), opened.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    return Sheet(place, width, height, image_address(content, kind))


def _content(folder: Path, name: str, most: float) -> bytes:
    """The content of a sheet's file. Raises OSError where it cannot be read, and ValueError where it
    lies outside the folder or has more than `most` bytes as text."""
    path = folder / name
    if path.resolve().parent != folder.resolve() or path.stat().st_size * 4 / 3 > most:
        raise ValueError(path)
    return path.read_bytes()
