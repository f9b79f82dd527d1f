"""Predictions of several models and seeds as arrays, for a comparison from Python."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stresslens.core.arrays import numbers
from stresslens.core.errors import DataError
from stresslens.core.labels import label_numbers
from stresslens.evaluation.prediction_table import PredictionTable, as_logits


def tables_of_arrays(scores: Mapping[str, Any], labels: Any) -> dict[tuple[str, int], PredictionTable]:
    """The tables of each model, by name, and seed: scores (images, classes) or (seeds, images, classes),
    probabilities or logits; or answers (images,) or (seeds, images) as class numbers.

    Raises DataError for arrays that do not fit the labels (images,) or each other, and as
    `read_predictions` does for scores that are neither.
    """
    truth = label_numbers(labels, None).numpy()
    arrays = {name: _by_seed(values, name, len(truth)) for name, values in scores.items()}
    widths = {name: each.shape[-1] for name, each in arrays.items() if each.ndim == 3}
    if len(set(widths.values())) > 1:
        said = ", ".join(f"{name} has {k}" for name, k in widths.items())
        raise DataError(f"the scores are of different numbers of classes: {said}")
    largest = max(int(truth.max()), *(int(each.max()) for each in arrays.values() if each.ndim == 2), 1)
    k = next(iter(widths.values()), largest + 1)
    if largest >= k or min(int(truth.min()), *(_least(each) for each in arrays.values())) < 0:
        raise DataError(f"labels and answers are class numbers; with {k} classes they go from 0 to {k - 1}")
    known = tuple(map(str, range(k)))
    return {
        (name, seed): _table(Path(name), values, truth, known)
        for name, each in arrays.items()
        for seed, values in enumerate(each)
    }


def _by_seed(values: Any, name: str, images: int) -> NDArray[Any]:
    """Scores (seeds, images, classes) or answers (seeds, images)."""
    found = numbers(values, f"the scores of {name}").detach().cpu().numpy()
    whole = found.dtype.kind in "iub"
    if found.ndim == (1 if whole else 2):
        found = found[None]
    if found.ndim != (2 if whole else 3) or 0 in found.shape:
        form = (
            "answers (images,) or (seeds, images)"
            if whole
            else "scores (images, classes) or (seeds, images, classes)"
        )
        raise DataError(f"{name} has the shape {found.shape}; expected {form}")
    if found.shape[1] != images:
        raise DataError(f"{name} has {found.shape[1]:,} images in each seed, and there are {images:,} labels")
    if not whole and found.shape[2] < 2:
        raise DataError(f"{name} has one score of each image; a classifier has two classes or more")
    return found


def _least(values: NDArray[Any]) -> int:
    return int(values.min()) if values.ndim == 2 else 0


def _table(
    source: Path, values: NDArray[Any], labels: NDArray[np.int64], classes: tuple[str, ...]
) -> PredictionTable:
    if values.ndim == 1:
        answers = np.zeros((len(values), len(classes)), np.float32)
        answers[np.arange(len(values)), values.astype(np.int64)] = 1
        return PredictionTable(source, (), labels, answers, "answers", classes, {})
    logits, note = as_logits(values.astype(np.float32), source)
    return PredictionTable(source, (), labels, logits, "logits", classes, {}, (note,))
