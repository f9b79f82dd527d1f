"""Example images for a run's report: which images are shown, and their pixels in one sprite
sheet."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn.functional import interpolate

from stresslens.core.answers import NO_ANSWER, confidence, predicted
from stresslens.core.data import Split
from stresslens.core.files import write_bytes, write_json
from stresslens.core.panels import image_pixels
from stresslens.core.sampling import rank_within
from stresslens.evaluation.example_file import ClassifiedImage, Example
from stresslens.evaluation.scores import Predictions

if TYPE_CHECKING:
    from PIL.Image import Image

SAMPLES = 18
MISTAKES = 60
A_CELL = 4
IN_CELLS = 160
LIKELIEST = 3
THUMBNAIL = 96
"""Images whose longer side has more pixels are scaled down to this."""
LOSSLESS = 48
"""Up to this many pixels of the longer side the sheet is stored without loss (PNG)."""
SHEET_BYTES = 800_000
COLUMNS = 16

Way = tuple[str, Mapping[str, Any]]
"""An encoding: an image format, and the options of Pillow that it is saved with."""
PNG: Way = ("png", {})
LOSSY: tuple[Way, ...] = tuple(("webp", {"quality": quality, "method": 2}) for quality in (80, 50, 20))


def examples_of(predictions: Predictions, *, seed: int = 0) -> list[ClassifiedImage]:
    """At most 238 images to show.

    `SAMPLES` are drawn at random ("sample"). `MISTAKES` are the misclassified images with the
    highest confidence ("mistake"). Further mistakes ("cell") follow until each pair of true and
    predicted class has up to `A_CELL` of its own, at most `IN_CELLS` in all: the most confident
    first, and one for every pair before a second.
    """
    probabilities = predictions.probabilities
    answers, labels = predicted(probabilities), predictions.labels
    sure = confidence(probabilities)
    sample = np.sort(np.random.default_rng(seed).permutation(len(answers))[:SAMPLES])
    wrong = np.flatnonzero(answers != labels)
    wrong = wrong[np.argsort(-sure[wrong], kind="stable")]
    rank = rank_within(labels[wrong] * (probabilities.shape[1] + 1) + answers[wrong] - NO_ANSWER)
    further = np.flatnonzero((np.arange(len(wrong)) >= MISTAKES) & (rank < A_CELL))
    further = further[np.argsort(rank[further], kind="stable")][:IN_CELLS]
    chosen = {"sample": sample, "mistake": wrong[:MISTAKES], "cell": wrong[further]}
    return classified_images(predictions, chosen)


def classified_images(predictions: Predictions, chosen: Mapping[str, Iterable[int]]) -> list[ClassifiedImage]:
    """What is known of the images in the chosen rows of the predictions, by why they are shown."""
    probabilities = predictions.probabilities
    answers, sure = predicted(probabilities), confidence(probabilities)
    return [
        ClassifiedImage(
            index=int(predictions.index[row]),
            truth=int(predictions.labels[row]),
            predicted=int(answers[row]),
            probability=float(sure[row]),
            probabilities=[
                (int(k), float(probabilities[row, k]))
                for k in np.argsort(-probabilities[row], kind="stable")[:LIKELIEST]
                if answers[row] != NO_ANSWER
            ],
            kind=kind,
        )
        for kind, rows in chosen.items()
        for row in rows
    ]


def save_examples(folder: Path, split: Split, predictions: Predictions) -> None:
    """Writes examples.json and the sprite sheet of the images that `examples_of` selects."""
    save_sheet(folder, split, examples_of(predictions))


def save_sheet(folder: Path, split: Split, shown: Sequence[ClassifiedImage]) -> None:
    """Writes examples.json and the sprite sheet of images of a split, at least one.

    Each entry's `file` and `box` (left, top, width, height) point into the sheet. Its `source` is
    the name of the image's file, if the split has that column.
    """
    indices = sorted({image.index for image in shown})
    images = thumbnails(split, indices)
    height, width = images.shape[1:3]
    encodings = LOSSY if max(height, width) > LOSSLESS else (PNG, *LOSSY)
    name, content = encoded(sheet_of(images), encodings, SHEET_BYTES)
    position = {index: k for k, index in enumerate(indices)}
    files = split.columns.get("file")
    entries = []
    for image in shown:
        row, column = divmod(position[image.index], COLUMNS)
        box = (column * width, row * height, width, height)
        entry = Example(**image.as_json(), file=name, box=box)
        if files is not None:
            entry.source = str(files[image.index])
        entries.append(entry)
    write_bytes(folder / name, content)
    write_json(folder / "examples.json", [entry.as_json() for entry in entries])


def thumbnails(split: Split, indices: list[int]) -> np.ndarray:
    """The images at `indices` as uint8 (N, H, W) or (N, H, W, 3), no side longer than `THUMBNAIL`.

    Of images with neither 1 nor 3 channels, the first channel is taken.
    """
    x = split.floats(split.images[torch.as_tensor(indices)].cpu()).float().clamp(0, 1)
    if x.shape[1] != 3:
        x = x[:, :1]
    height, width = x.shape[2:]
    if max(height, width) > THUMBNAIL:
        scale = THUMBNAIL / max(height, width)
        size = (max(1, round(scale * height)), max(1, round(scale * width)))
        x = interpolate(x, size=size, mode="bilinear", antialias=True)
    return image_pixels(x)


def sheet_of(images: np.ndarray) -> Image:
    """The images, (N, H, W) or (N, H, W, 3), as one grid of `COLUMNS` columns, row by row."""
    from PIL import Image

    n, height, width = images.shape[:3]
    rows = -(-n // COLUMNS)
    grid = np.zeros((rows * COLUMNS, *images.shape[1:]), np.uint8)
    grid[:n] = images
    grid = grid.reshape(rows, COLUMNS, *images.shape[1:]).swapaxes(1, 2)
    return Image.fromarray(grid.reshape(rows * height, COLUMNS * width, *images.shape[3:]))


def encoded(sheet: Image, encodings: Sequence[Way], limit: int) -> tuple[str, bytes]:
    """The name and content of the sheet's file.

    The first of `encodings` that needs at most `limit` bytes is used, or else the last.
    """
    for kind, options in encodings:
        content = io.BytesIO()
        sheet.save(content, format=kind, **options)
        if content.tell() <= limit:
            break
    return f"pictures.{kind}", content.getvalue()
