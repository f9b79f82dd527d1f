"""The page of `stresslens predict --page`: image files beside the predictions of one or several runs."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from stresslens.core.image_files import Frame, Unreadable, decode, quietly, read_image
from stresslens.core.text import NOT_FINITE, brief
from stresslens.core.thumbnails import image_address
from stresslens.evaluation.classify_files import Prediction
from stresslens.report.page import write_page

SIDE = 224
"""Pixels of an image's longer side on the page."""
MOST = 100
"""Most images on a page."""


@dataclass(frozen=True)
class PredictedImage:
    """An image, and a row for each class or caption: its name and its probability by each run, None
    where a run does not rank it; `likeliest` are the first places of the runs."""

    file: str
    picture: Markup | None
    rows: Sequence[tuple[str, Sequence[float | None]]]
    likeliest: Sequence[str]
    unlike: Sequence[str]
    """The runs for which the image is out of distribution."""
    guaranteed: Sequence[str]
    """What is guaranteed of the image, a sentence for each run that does."""


def write_predictions(path: Path, runs: Sequence[tuple[str, Sequence[Prediction], str]]) -> Path:
    """Write the page of the first `MOST` images that the runs have classified, and return its path.

    `runs` are names of runs, each with its predictions of the same files and a sentence on its
    probabilities. The files are read again to be shown.
    """
    names = [name for name, _, _ in runs]
    by_file = [{row.file: row for row in rows if row.unreadable is None} for _, rows, _ in runs]
    files = list(by_file[0])
    return write_page(
        path,
        "predictions.html.j2",
        title="Predictions",
        contents=[],
        made_from="",
        names=names,
        said_of_runs=[f"{name}: {said}" if len(runs) > 1 else said for name, _, said in runs],
        images=[_predicted(file, names, [rows.get(file) for rows in by_file]) for file in files[:MOST]],
        left_out=max(0, len(files) - MOST),
    )


def _predicted(file: str, runs: Sequence[str], rows: Sequence[Prediction | None]) -> PredictedImage:
    tables = [dict(row.classes) if row else {} for row in rows]
    names = dict.fromkeys(name for table in tables for name in table)
    return PredictedImage(
        file=file,
        picture=_picture(file),
        rows=[(brief(name), [table.get(name) for table in tables]) for name in names],
        likeliest=[brief(row.classes[0][0]) if row and row.classes else NOT_FINITE for row in rows],
        unlike=[run for run, row in zip(runs, rows) if row and row.out_of_distribution],
        guaranteed=[
            f"{run}: {row.guaranteed.in_words}" if len(runs) > 1 else row.guaranteed.in_words
            for run, row in zip(runs, rows)
            if row and row.guaranteed
        ],
    )


def _picture(file: str) -> Markup | None:
    """An image element with the file's pixels inside, reduced to `SIDE`; None if it cannot be read
    any more."""
    from PIL import Image

    try:
        with quietly():
            pixels = decode(read_image(file), Frame(3, None)).pixels
    except (OSError, Unreadable):
        return None
    picture = Image.fromarray(pixels.transpose(1, 2, 0))
    zoom = max(1, SIDE // max(picture.size))
    picture.thumbnail((SIDE, SIDE))
    content = io.BytesIO()
    lossless = max(picture.size) <= 64
    picture.save(content, format="webp", lossless=lossless, quality=85)
    address = image_address(content.getvalue(), "webp")
    size = f'width="{picture.width * zoom}" height="{picture.height * zoom}"'
    return Markup('<img alt="{}" {} src="{}">').format(brief(file), Markup(size), address)
