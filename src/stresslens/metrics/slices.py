"""Slices: accuracy by image properties (brightness, saturation, size, table columns), with
tests."""

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
"""Most rows of a column's slice; further values, the rarest ones, share the row "other"."""
PERMUTATIONS = 9999
NOT_SLICED = ("file", "bytes", "width", "height", "group", "format")

Values = NDArray[Any]


@dataclass(frozen=True)
class GroupAccuracy:
    value: str
    accuracy: Estimate


@dataclass(frozen=True)
class Slice:
    """Accuracy of each group of images.

    `p` is for the hypothesis that accuracy is the same in all groups; `p_holm` is corrected (Holm)
    over the slices of a split.
    """

    by: str
    p: float
    p_holm: float
    rows: tuple[GroupAccuracy, ...]


def slices_of(
    columns: Mapping[str, Values],
    right: NDArray[np.bool_],
    *,
    brightness: Floats | None = None,
    saturation: Floats | None = None,
    named: Sequence[str] = (),
) -> list[Slice]:
    """All slices of a split.

    `right` (N,) says which images are classified correctly; `columns` are (N,); `brightness` and
    `saturation` are (N,) in [0, 1]. The slices are thirds of brightness and saturation, quarters of
    `width`×`height`, and each column that has 2 to `ROWS` values or is in `named`. A property that
    does not vary gives no slice.
    """
    groups = {}
    if brightness is not None:
        groups["brightness"] = _by_amount(brightness, ("dark", "medium", "bright"), "{:.2f} to {:.2f}")
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
    groups = {by: (names, group) for by, (names, group) in groups.items() if len(names) > 1}
    p = {by: p_of_no_difference(right, group) for by, (_, group) in groups.items()}
    corrected = holm(p)
    return [
        Slice(by, p[by], corrected[by], tuple(_row(name, right[group == k]) for k, name in enumerate(names)))
        for by, (names, group) in groups.items()
    ]


def _row(name: str, right: NDArray[np.bool_]) -> GroupAccuracy:
    return GroupAccuracy(name, wilson(int(right.sum()), len(right)))


def _by_amount(values: Floats, names: Sequence[str], span: str) -> tuple[list[str], Values]:
    """Names of groups of about equal size, from low to high values, and each image's group.

    Equal values stay in one group, so there may be fewer groups than `names`.
    """
    edges = np.unique(np.quantile(values, np.linspace(0, 1, len(names) + 1)[1:-1]))
    present, group = np.unique(np.searchsorted(edges, values, side="left"), return_inverse=True)
    spans = [span.format(values[group == k].min(), values[group == k].max()) for k in range(len(present))]
    if len(present) < len(names):
        return spans, group
    return [f"{name} ({of})" for name, of in zip(names, spans)], group


def _by_value(column: Values) -> tuple[list[str], Values]:
    values, group, counts = np.unique(column, return_inverse=True, return_counts=True)
    names = [str(value) for value in values]
    if len(names) <= ROWS:
        return names, group
    frequent = np.sort(np.argsort(-counts, kind="stable")[: ROWS - 1])
    row = np.full(len(values), ROWS - 1)
    row[frequent] = np.arange(ROWS - 1)
    return [names[k] for k in frequent] + ["other"], row[group]


def p_of_no_difference(right: NDArray[np.bool_], group: Values, *, seed: int = 0) -> float:
    """p for the hypothesis that accuracy is the same in every group (Pearson's chi-squared test).

    If fewer than five images are expected in a cell, the statistic is compared with its
    distribution over permutations of the images.
    """
    from scipy.special import chdtrc

    sizes = np.bincount(group)
    wrong, errors, n = np.bincount(group, weights=~right), int((~right).sum()), len(right)
    if errors in (0, n):
        return 1.0
    expected = sizes * errors / n

    def statistic(counts: Values) -> Floats:
        return np.asarray((np.square(counts - expected) / (sizes * (errors / n) * (1 - errors / n))).sum(-1))

    observed = statistic(wrong)
    if min(expected.min(), (sizes - expected).min()) >= 5:
        return float(chdtrc(len(sizes) - 1, observed))
    permuted = statistic(
        np.random.default_rng(seed).multivariate_hypergeometric(sizes, errors, size=PERMUTATIONS)
    )
    return float((1 + (permuted >= observed - 1e-9).sum()) / (1 + PERMUTATIONS))
