"""Planted label flips: labels that are known to be wrong, by which a search for wrong labels is measured."""

from __future__ import annotations

from typing import Literal

import numpy as np

from stresslens.metrics.classification import Labels
from stresslens.metrics.intervals import Floats

FlipKind = Literal["uniform", "confused pairs"]
"""Which label a flip gives: any other class with the same chance, or the one that the models take the
given class for most."""
FEWEST = 10
"""At least so many flips are planted where the images allow it: a share of fewer says little."""
LARGEST_SHARE = 4
"""At most one image in so many of a class gets a flip."""


def planted_flips(
    labels: Labels, probabilities: Floats, share: float, kind: FlipKind, *, seed: int = 0
) -> tuple[Labels, Labels]:
    """(N,) the labels with flips, and (M,) the rows that have one, ascending.

    About `share` of the images are drawn at random, at least `FEWEST`, and never more than a quarter of a
    class. Confused pairs come from the probabilities (N, K) of the images.
    """
    random = np.random.default_rng([seed, len(labels), kind == "uniform"])
    order = random.permutation(len(labels))
    room = np.bincount(labels, minlength=probabilities.shape[1]) // LARGEST_SHARE
    rows: list[int] = []
    for row in order:
        if len(rows) >= max(FEWEST, round(share * len(labels))):
            break
        if room[labels[row]] > 0:
            room[labels[row]] -= 1
            rows.append(int(row))
    chosen = np.sort(np.array(rows, np.int64))
    flipped = labels.copy()
    if kind == "uniform":
        present = np.unique(labels)
        step = random.integers(1, len(present), len(chosen))
        flipped[chosen] = present[(np.searchsorted(present, labels[chosen]) + step) % len(present)]
    else:
        flipped[chosen] = _most_confused(labels, probabilities)[labels[chosen]]
    return flipped, chosen


def _most_confused(labels: Labels, probabilities: Floats) -> Labels:
    """(K,) for each class the other class with images that has the largest mean probability over the
    images with its label."""
    classes = probabilities.shape[1]
    means = np.full((classes, classes), -1.0)
    present = np.unique(labels)
    for label in present:
        means[label, present] = np.nan_to_num(probabilities[labels == label][:, present]).mean(0)
    np.fill_diagonal(means, -2.0)
    partners: Labels = means.argmax(1)
    return partners
