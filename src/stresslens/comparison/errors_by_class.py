"""Errors by class of two variants: how many images only the first gets wrong, only the second, and
both."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Answered = tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.int64]]
"""For one seed: whether a and b are correct (images,), and the labels (images,)."""


def count_errors(seeds: Iterable[Answered]) -> dict[str, list[int]]:
    """Counts for each class 0 … K-1, summed over the seeds: its images, those that only a gets
    wrong, only b, and both."""
    answered = list(seeds)
    classes = 1 + max(int(labels.max()) for _, _, labels in answered)
    counts: dict[str, Any] = {
        name: np.zeros(classes, np.int64) for name in ("images", "only_a", "only_b", "both")
    }
    for a, b, labels in answered:
        which = {"images": np.ones_like(a), "only_a": ~a & b, "only_b": a & ~b, "both": ~a & ~b}
        for name, rows in which.items():
            counts[name] += np.bincount(labels[rows], minlength=classes)
    return {name: column.tolist() for name, column in counts.items()}
