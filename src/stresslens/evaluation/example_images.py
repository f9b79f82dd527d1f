"""Pictures that a report shows of a run: which images, and their pixels in one sheet."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn.functional import interpolate

from stresslens.core.data import Split
from stresslens.core.files import write_atomically, write_json
from stresslens.core.panels import image_pixels
from stresslens.core.sampling import rank_within
from stresslens.evaluation.scores import Predictions

if TYPE_CHECKING:
    from PIL.Image import Image

SAMPLES = 18
MISTAKES = 60
A_CELL = 4
IN_CELLS = 160
LIKELIEST = 3
THUMBNAIL = 96
"""Pixels of the longer side beyond which a picture is made smaller."""
LOSSLESS = 48
"""Pixels of the longer side up to which the sheet loses nothing."""
SHEET_BYTES = 800_000
COLUMNS = 16

Way = tuple[str, Mapping[str, Any]]
"""A kind of picture file, with how to write it."""
PNG: Way = ("png", {})
LOSSY: tuple[Way, ...] = tuple(("webp", {"quality": quality, "method": 2}) for quality in (80, 50, 20))


def examples_of(predictions: Predictions, *, seed: int = 0) -> list[dict[str, Any]]:
    """Images worth showing, at most 238, as entries of examples.json without their pixels.

    `SAMPLES` drawn at random ("sample"), the `MISTAKES` that the model was surest of ("mistake"),
    and further mistakes ("cell") until each pair of truth and prediction has up to `A_CELL` of its
    own, the surest first and one for every pair before a second.
    """
    probabilities = predictions.probabilities
    guess, labels = probabilities.argmax(1), predictions.labels
    sure = probabilities.max(1)
    sample = np.sort(np.random.default_rng(seed).permutation(len(guess))[:SAMPLES])
    wrong = np.flatnonzero(guess != labels)
    wrong = wrong[np.argsort(-sure[wrong], kind="stable")]
    rank = rank_within(labels[wrong] * probabilities.shape[1] + guess[wrong])
    further = np.flatnonzero((np.arange(len(wrong)) >= MISTAKES) & (rank < A_CELL))
    further = further[np.argsort(rank[further], kind="stable")][:IN_CELLS]
    chosen = {"sample": sample, "mistake": wrong[:MISTAKES], "cell": wrong[further]}
    likeliest = {
        row: np.argsort(-probabilities[row], kind="stable")[:LIKELIEST]
        for rows in chosen.values()
        for row in rows
    }
    return [
        {
            "index": int(predictions.index[row]),
            "truth": int(labels[row]),
            "predicted": int(guess[row]),
            "probability": float(sure[row]),
            "probabilities": [[int(k), float(probabilities[row, k])] for k in likeliest[row]],
            "kind": kind,
        }
        for kind, rows in chosen.items()
        for row in rows
    ]


def save_examples(folder: Path, split: Split, predictions: Predictions) -> None:
    """Writes examples.json and the sheet of pictures that its `file` and `box` (left, top, width,
    height) point into.

    `source` is the name of the image's file, where the split knows it.
    """
    entries = examples_of(predictions)
    indices = sorted({entry["index"] for entry in entries})
    pictures = thumbnails(split, indices)
    height, width = pictures.shape[1:3]
    name, content = encoded(
        sheet_of(pictures), LOSSY if max(height, width) > LOSSLESS else (PNG, *LOSSY), SHEET_BYTES
    )
    place = {index: k for k, index in enumerate(indices)}
    files = split.columns.get("file")
    for entry in entries:
        row, column = divmod(place[entry["index"]], COLUMNS)
        entry |= {"file": name, "box": [column * width, row * height, width, height]}
        if files is not None:
            entry["source"] = str(files[entry["index"]])
    write_atomically(folder / name, lambda file: file.write(content))
    write_json(folder / "examples.json", entries)


def thumbnails(split: Split, indices: list[int]) -> np.ndarray:
    """Some images as uint8 (N, H, W) or (N, H, W, 3), no side longer than `THUMBNAIL`; of other
    channel counts the first."""
    x = split.floats(split.images[torch.as_tensor(indices)].cpu()).float().clamp(0, 1)
    if x.shape[1] != 3:
        x = x[:, :1]
    height, width = x.shape[2:]
    if max(height, width) > THUMBNAIL:
        scale = THUMBNAIL / max(height, width)
        size = (max(1, round(scale * height)), max(1, round(scale * width)))
        x = interpolate(x, size=size, mode="bilinear", antialias=True)
    return image_pixels(x)


def sheet_of(pictures: np.ndarray) -> Image:
    """Every picture, (N, H, W) or (N, H, W, 3), in a grid of `COLUMNS`, row by row."""
    from PIL import Image

    n, height, width = pictures.shape[:3]
    rows = -(-n // COLUMNS)
    grid = np.zeros((rows * COLUMNS, *pictures.shape[1:]), np.uint8)
    grid[:n] = pictures
    grid = grid.reshape(rows, COLUMNS, *pictures.shape[1:]).swapaxes(1, 2)
    return Image.fromarray(grid.reshape(rows * height, COLUMNS * width, *pictures.shape[3:]))


def encoded(sheet: Image, ways: Sequence[Way], limit: int) -> tuple[str, bytes]:
    """The file's name and content, by the first of the ways that keeps within `limit` bytes, else
    by the last."""
    for kind, options in ways:
        content = io.BytesIO()
        sheet.save(content, format=kind, **options)
        if content.tell() <= limit:
            break
    return f"pictures.{kind}", content.getvalue()
