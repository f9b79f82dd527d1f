"""Accuracy by what an image is like: its brightness, its size, a column of its table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stresslens.core.types import Estimate
from stresslens.metrics.intervals import Floats, wilson
from stresslens.metrics.paired import holm

ROWS = 20
"""Values of a column that get a row each; the rarest beyond are one row, "other"."""
PERMUTATIONS = 9999
NOT_SLICED = ("file", "bytes", "width", "height", "group")

Values = NDArray[Any]


@dataclass(frozen=True)
class GroupAccuracy:
    value: str
    accuracy: Estimate


@dataclass(frozen=True)
class Slice:
    """Accuracy of each group of images; `p` of their being alike, `p_holm` after Holm's correction
    over the slices of a split."""

    by: str
    p: float
    p_holm: float
    rows: tuple[GroupAccuracy, ...]


def slices_of(
    columns: Mapping[str, Values],
    right: NDArray[np.bool_],
    *,
    brightness: Floats,
    saturation: Floats | None = None,
    named: Sequence[str] = (),
) -> list[Slice]:
    """Every slice of a split: `right` (N,), `columns` of (N,) facts, `brightness` and `saturation`
    (N,) in [0, 1].

    Thirds of brightness and saturation, quarters of `width`×`height`, and each column of 2 to
    `ROWS` values or in `named`. What does not vary makes no slice.
    """
    groups = {"brightness": _by_amount(brightness, ("dark", "medium", "bright"), "{:.2f} to {:.2f}")}
    if saturation is not None:
        groups["saturation"] = _by_amount(saturation, ("pale", "medium", "vivid"), "{:.2f} to {:.2f}")
    if "width" in columns and "height" in columns:
        pixels = columns["width"].astype(float) * columns["height"]
        groups["size"] = _by_amount(
            pixels, ("smallest", "small", "large", "largest"), "{:,.0f} to {:,.0f} pixels"
        )
    for name, column in columns.items():
        if name in named or (name not in NOT_SLICED and len(np.unique(column)) <= ROWS):
            groups[name] = _by_value(column)
    groups = {by: (names, place) for by, (names, place) in groups.items() if len(names) > 1}
    p = {by: p_of_no_difference(right, place) for by, (_, place) in groups.items()}
    corrected = holm(p)
    return [
        Slice(by, p[by], corrected[by], tuple(_row(name, right[place == k]) for k, name in enumerate(names)))
        for by, (names, place) in groups.items()
    ]


def _row(name: str, right: NDArray[np.bool_]) -> GroupAccuracy:
    return GroupAccuracy(name, wilson(int(right.sum()), len(right)))


def _by_amount(values: Floats, names: Sequence[str], span: str) -> tuple[list[str], Values]:
    """Groups of about equal number, from low to high, and each image's; equal values stay together,
    which may leave fewer."""
    edges = np.unique(np.quantile(values, np.linspace(0, 1, len(names) + 1)[1:-1]))
    found, place = np.unique(np.searchsorted(edges, values, side="left"), return_inverse=True)
    spans = [span.format(values[place == k].min(), values[place == k].max()) for k in range(len(found))]
    return [f"{name} ({of})" for name, of in zip(names, spans)] if len(found) == len(names) else spans, place


def _by_value(column: Values) -> tuple[list[str], Values]:
    values, place, counts = np.unique(column, return_inverse=True, return_counts=True)
    names = [str(value) for value in values]
    if len(names) <= ROWS:
        return names, place
    frequent = np.sort(np.argsort(-counts, kind="stable")[: ROWS - 1])
    row = np.full(len(values), ROWS - 1)
    row[frequent] = np.arange(ROWS - 1)
    return [names[k] for k in frequent] + ["other"], row[place]


def p_of_no_difference(right: NDArray[np.bool_], place: Values, *, seed: int = 0) -> float:
    """p of the hypothesis that accuracy is the same in every group: Pearson's chi-squared of groups
    against right and wrong.

    With fewer than five images expected in a cell, against its distribution over permutations of the images.
    """
    from scipy.stats import chi2

    sizes = np.bincount(place)
    wrongs, errors, n = np.bincount(place, weights=~right), int((~right).sum()), len(right)
    if errors in (0, n):
        return 1.0
    expected = sizes * errors / n

    def statistic(counts: Values) -> Floats:
        return np.asarray((np.square(counts - expected) / (sizes * (errors / n) * (1 - errors / n))).sum(-1))

    seen = statistic(wrongs)
    if min(expected.min(), (sizes - expected).min()) >= 5:
        return float(chi2.sf(seen, len(sizes) - 1))
    drawn = statistic(
        np.random.default_rng(seed).multivariate_hypergeometric(sizes, errors, size=PERMUTATIONS)
    )
    return float((1 + (drawn >= seen - 1e-9).sum()) / (1 + PERMUTATIONS))
