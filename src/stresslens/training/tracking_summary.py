"""The summary of a finished run for its trackers: graph, example images, confusion matrices, an
embedding and the scores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from stresslens.config import study_record
from stresslens.config.dotted_keys import settings
from stresslens.core.answers import answer_in_words
from stresslens.core.data import Data
from stresslens.core.run_folder import RunFolder
from stresslens.core.sampling import balanced_subset
from stresslens.core.tracking import Embedding, Entry, Figure, Graph, Outcome, Pictures, Pixels, Text
from stresslens.evaluation import ood
from stresslens.evaluation.example_file import ClassifiedImage
from stresslens.evaluation.example_images import examples_of, thumbnails
from stresslens.evaluation.record import RunRecord
from stresslens.evaluation.scores import predictions_of

SHOWN = 9
"""Images drawn at random, and as many of the mistakes with the highest confidence."""
EMBEDDED = 500
SCORES = ("accuracy", "balanced_accuracy", "cross_entropy")
CELL = 36
"""Width in pixels of a cell of the confusion matrix; with many classes it is 4, without counts."""
FIGURES_UP_TO = 20


def entries_of(
    folder: RunFolder,
    model: torch.nn.Module,
    data: Data,
    record: RunRecord,
    config: Mapping[str, Any],
) -> Iterator[Entry]:
    """The entries of the summary. `model` is the trained one, on the CPU. Images and embedding are
    of the validation split, or without one of the training split."""
    study = folder.path.parent.parent
    if (study / study_record.FILE).exists() and (head := study_record.read_study_record(study).head):
        yield Text("study", head)
    # an estimator has no layers to draw or to take features from
    is_network = any(True for _ in model.parameters())
    if is_network:
        yield Graph(model.eval(), torch.zeros(1, *data.shape))
    for name, counts in record.confusion.items():
        yield Figure(f"confusion, {name}", confusion_figure(np.array(counts), data.classes))
    split = data.validation if data.validation is not None else data.train
    rows = balanced_subset(split.labels.cpu(), min(EMBEDDED, len(split)), seed=0)
    sample = split.select(rows)
    features = None
    if is_network:
        predictions, features = ood.observed(model, sample, lambda: predictions_of(model, sample))
    else:
        predictions = predictions_of(model, sample)
    examples = examples_of(predictions)
    for kind in ("sample", "mistake"):
        if shown := [e for e in examples if e.kind == kind][:SHOWN]:
            pixels = _coloured(thumbnails(sample, [e.index for e in shown]))
            yield Pictures(f"{kind}s", pixels, tuple(_caption(e, data.classes) for e in shown))
    if features is not None:
        labels = tuple(data.classes[k] for k in features.labels)
        yield Embedding(features.features, labels, _coloured(thumbnails(sample, list(range(len(sample))))))
    scores = {
        f"{split}/{name}": scores[name].value
        for split, scores in record.scores.items()
        for name in SCORES
        if name in scores
    }
    yield Outcome(dict(settings(config)), scores)


def _caption(example: ClassifiedImage, classes: Sequence[str]) -> str:
    called = answer_in_words(example.predicted, classes)
    return f"{classes[example.truth]}, called {called} ({example.probability:.0%})"


def _coloured(pixels: np.ndarray) -> Pixels:
    return pixels if pixels.ndim == 4 else np.repeat(pixels[..., None], 3, axis=3)


def confusion_figure(counts: np.ndarray, classes: Sequence[str]) -> Pixels:
    """The confusion matrix as an image (H, W, 3): a row for each true class and a column for each
    predicted one; a cell is the darker, the larger its share of the row.

    With up to `FIGURES_UP_TO` classes it shows the names beside the rows and the counts in the cells.
    """
    from PIL import Image, ImageDraw, ImageFont

    shares = counts / counts.sum(1, keepdims=True).clip(1)
    cell = CELL if len(classes) <= FIGURES_UP_TO else 4
    shade = np.stack([255 - 247 * shares, 255 - 174 * shares, 255 - 99 * shares], axis=2)
    cells = Image.fromarray(shade.round().astype(np.uint8).repeat(cell, 0).repeat(cell, 1))
    if cell < CELL:
        return np.asarray(cells)
    font = ImageFont.load_default(12)
    margin = 12 + max(int(font.getlength(name[:24])) for name in classes)
    picture = Image.new("RGB", (margin + cells.width, cells.height + 24), "white")
    picture.paste(cells, (margin, 0))
    draw = ImageDraw.Draw(picture)
    for row, name in enumerate(classes):
        middle = row * cell + cell // 2
        draw.text((margin - 6, middle), name[:24], "black", font, anchor="rm")
        for column, count in enumerate(counts[row]):
            colour = "white" if shares[row, column] > 0.5 else "black"
            draw.text((margin + column * cell + cell // 2, middle), str(count), colour, font, anchor="mm")
    draw.text(
        (margin, cells.height + 12), "columns: predicted, in the same order", "black", font, anchor="lm"
    )
    return np.asarray(picture)
