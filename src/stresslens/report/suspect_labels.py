"""The page of `stresslens data labels --page`: pictures whose labels are probably wrong, and how many of
planted flips the same search finds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from stresslens.core.text import brief
from stresslens.core.thumbnails import data_address
from stresslens.evaluation.label_errors import LabelError, LabelErrors
from stresslens.report.page import write_page

MOST = 300
"""Most pictures on a page."""
SIDE = 96
"""Pixels of the longer side of a picture; a smaller one is magnified by a whole number."""


@dataclass(frozen=True)
class SuspectPicture:
    """A picture with what is given and suggested for it."""

    error: LabelError
    picture: Markup


def write_label_errors(path: Path, found: LabelErrors) -> Path:
    """Write the page of the first `MOST` images that were found, and return its path."""
    shown = found.errors[:MOST]
    return write_page(
        path,
        "label_errors.html.j2",
        title="Wrong labels",
        contents=[],
        made_from="",
        found=found,
        measured=found.recall_table.html() if found.planted else None,
        pictures=[
            SuspectPicture(error, _picture(pixels, error.image))
            for error, pixels in zip(shown, found.pixels(shown))
        ],
        left_out=len(found.errors) - len(shown),
    )


def _picture(pixels: NDArray[np.uint8], name: str) -> Markup:
    height, width = pixels.shape[:2]
    larger = max(height, width)
    scale = SIDE // larger if larger <= SIDE else SIDE / larger
    size = Markup('width="{}" height="{}"').format(
        max(1, round(width * scale)), max(1, round(height * scale))
    )
    return Markup('<img alt="{}" {} src="{}">').format(brief(name), size, data_address(pixels, SIDE))
