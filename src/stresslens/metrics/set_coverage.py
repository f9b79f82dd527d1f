"""How prediction sets do on images with labels: coverage and size, by class and by size of the set."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stresslens.core.types import Estimate
from stresslens.metrics.classification import Labels
from stresslens.metrics.intervals import bounded_mean, wilson

SIZES = ((0, 0), (1, 1), (2, 2), (3, 3), (4, 10), (11, 100), (101, None))
"""The ranges of set sizes whose coverage is told (Angelopoulos et al. 2021)."""


@dataclass(frozen=True)
class SetScores:
    """Coverage, the share of the sets that hold the true class, and mean size, with intervals."""

    coverage: Estimate
    size: Estimate
    sizes: dict[int, int]
    """How many sets have each size; size 0 is an empty set."""
    by_class: list[Estimate]
    """(K,) the coverage of each class; NaN without images."""
    by_size: dict[str, Estimate]
    """The coverage of the sets of each size, or range of sizes, that occurs."""

    @property
    def empty(self) -> int:
        return self.sizes.get(0, 0)

    @property
    def worst_class(self) -> int:
        """The class of the lowest coverage, among those with images."""
        known = [k for k, each in enumerate(self.by_class) if each.n]
        return min(known, key=lambda k: self.by_class[k].value)


def set_scores(inside: NDArray[np.bool_], labels: Labels) -> SetScores:
    """The scores of sets (N, K) of images with labels (N,), N at least 1."""
    n, k = inside.shape
    covered, size = inside[np.arange(n), labels], inside.sum(1)
    of_class, hits = (np.bincount(labels[rows], minlength=k) for rows in (slice(None), covered))
    by_size = {}
    for low, high in SIZES:
        here = (size >= low) & (size <= (k if high is None else high))
        if here.any():
            name = str(low) if low == high else f"{low} or more" if high is None else f"{low} to {high}"
            by_size[name] = wilson(int(covered[here].sum()), int(here.sum()))
    counts = np.bincount(size)
    return SetScores(
        wilson(int(covered.sum()), n),
        bounded_mean(size.astype(float), (0.0, float(k))),
        {int(s): int(counts[s]) for s in np.flatnonzero(counts)},
        [wilson(int(h), int(m)) for h, m in zip(hits, of_class)],
        by_size,
    )
