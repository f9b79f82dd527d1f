"""Slice discovery: clusters of features in which accuracy is low, found on one half of the images and
tested on the other.

Domino (Eyuboglu et al. 2022) and Spotlight (d'Eon et al. 2022) find such slices on all images. Here half of
the images is kept for the test, so that the search itself makes no slice.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stresslens.core.types import Estimate
from stresslens.metrics.intervals import Floats, difference_of_proportions, wilson
from stresslens.metrics.paired import holm

LEAST = 40
"""With fewer images no slices are searched."""
AXES = 32
"""Principal axes of the features that are clustered."""
FLAT = 0.1
"""Axes are scaled to a spread of 1, but those with less than this share of the largest spread only in
part."""
IN_CLUSTER = {"wrong": 5, "right": 50}
"""Of the half that is looked at, the wrong and the right images have a cluster for so many of them."""
MOST_CLUSTERS = {"wrong": 5, "right": 50}
CANDIDATES = 5
"""So many clusters of each kind of features, those with the strongest sign of low accuracy in the half
that is looked at, are tested."""
SAME = 0.5
"""A slice with more than this share of its images in slices of lower p is not listed again."""
ALPHA, POWER = 0.05, 0.8
SHARE = 0.05
"""Of the tested images: the slice that is spoken of where no cluster was tested."""


@dataclass(frozen=True)
class DiscoveredSlice:
    """A cluster on the half that was kept for the test. `members` are positions of its images, the nearest
    to its centre first; `rest` is the accuracy of the other tested images, `gap` that of the slice minus
    `rest`. `p_holm` is corrected (Holm) over all clusters that were tested."""

    features: str
    members: NDArray[np.int64]
    accuracy: Estimate
    rest: Estimate
    gap: Estimate
    p: float
    p_holm: float


@dataclass(frozen=True)
class SliceSearch:
    """The slices whose accuracy is lower than that of the rest, the lowest p first.

    `looked` and `tested` are the images of the halves; of `clusters` the `candidates` were tested. A slice
    of `size` of the tested images, the median of the clusters that were tested, would have been found with
    a probability of `POWER`, if one cluster held it, from a `gap` to the rest on; infinite where no gap
    would.
    """

    slices: tuple[DiscoveredSlice, ...]
    looked: int
    tested: int
    clusters: int
    candidates: int
    size: int
    gap: float


def discover_slices(
    features: Mapping[str, Floats], right: NDArray[np.bool_], *, seed: int = 0
) -> SliceSearch:
    """Slices of low accuracy among N images, at least `LEAST`, with features (N, D) of one kind or several;
    `right` (N,) says which are classified correctly.

    The images are halved at random. On one half, the wrong and the right images are clustered
    separately (k-means), so that errors of one kind have a centre of their own; each image of both
    halves then belongs to the nearest centre. The `CANDIDATES` clusters with the strongest sign of low
    accuracy on this half are tested on the other half: p is that of Fisher's exact test, one-sided.
    """
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # comes with scikit-learn

    order = np.random.default_rng(seed).permutation(len(right))
    first, second = order[: len(order) // 2], order[len(order) // 2 :]
    members: dict[tuple[str, int], NDArray[np.int64]] = {}
    clusters = 0
    with threadpool_limits(1):  # sums in one order
        for kind, values in features.items():
            found, count = _candidates(values[first], values[second], right[first], seed)
            members |= {(kind, k): rows for k, rows in found.items()}
            clusters += count
    p_values = {key: _p_of_low_accuracy(right[second], _mask(rows, second)) for key, rows in members.items()}
    corrected, slices = holm(p_values), []
    seen = np.zeros(len(second), bool)
    for key in sorted(p_values, key=lambda key: (p_values[key], key)):
        inside = _mask(members[key], second)
        if corrected[key] > ALPHA or seen[inside].mean() > SAME:
            continue
        seen |= inside
        within, rest = _accuracy(right[second][inside]), _accuracy(right[second][~inside])
        gap = difference_of_proportions(rest, within)
        rows = second[members[key]]
        slices.append(DiscoveredSlice(key[0], rows, within, rest, gap, p_values[key], corrected[key]))
    sizes = [len(rows) for rows in members.values()] or [max(10, round(SHARE * len(second)))]
    size = int(np.median(sizes))
    gap_found = _detectable_gap(float(right[second].mean()), size, len(second) - size, max(1, len(p_values)))
    return SliceSearch(tuple(slices), len(first), len(second), clusters, len(p_values), size, gap_found)


def _candidates(
    first: Floats, second: Floats, right: NDArray[np.bool_], seed: int
) -> tuple[dict[int, NDArray[np.int64]], int]:
    """The clusters to test, as positions in the second half, the nearest to the centre first; and how many
    clusters there are. `right` is that of the first half."""
    x, y = _on_axes(first, second)
    centres = _centres(x, right, seed)
    of_first, _ = _nearest(x, centres)
    of_second, distance = _nearest(y, centres)
    signs = {k: _p_of_low_accuracy(right, of_first == k) for k in range(len(centres))}
    chosen = sorted((p, k) for k, p in signs.items() if p < 0.5 and (of_second == k).any())[:CANDIDATES]
    found = {k: np.flatnonzero(of_second == k) for _, k in chosen}
    return {k: rows[np.argsort(distance[rows], kind="stable")] for k, rows in found.items()}, len(centres)


def _mask(rows: NDArray[np.int64], images: NDArray[np.int64]) -> NDArray[np.bool_]:
    inside = np.zeros(len(images), bool)
    inside[rows] = True
    return inside


def _accuracy(right: NDArray[np.bool_]) -> Estimate:
    return wilson(int(right.sum()), len(right))


def _on_axes(first: Floats, second: Floats) -> tuple[Floats, Floats]:
    """Both halves on the principal axes of the first."""
    mean = first.mean(0)
    _, spread, axes = np.linalg.svd(first - mean, full_matrices=False)
    kept = min(AXES, int((spread > 1e-9 * max(spread[0], 1e-300)).sum()))
    scaled = axes[:kept].T / (spread[:kept] + FLAT * spread[0]) if kept else np.zeros((first.shape[1], 1))
    return (first - mean) @ scaled, (second - mean) @ scaled


def _centres(x: Floats, right: NDArray[np.bool_], seed: int) -> Floats:
    """(k, d) centres of clusters of the wrong and of the right images."""
    from sklearn.cluster import KMeans

    centres = []
    for which, chosen in (("wrong", x[~right]), ("right", x[right])):
        distinct = len(np.unique(chosen, axis=0))
        if distinct:
            k = min(distinct, MOST_CLUSTERS[which], max(1, len(chosen) // IN_CLUSTER[which]))
            centres.append(KMeans(k, n_init=4, random_state=seed).fit(chosen).cluster_centers_)
    return np.concatenate(centres)


def _nearest(x: Floats, centres: Floats) -> tuple[NDArray[np.int64], Floats]:
    """(N,) the nearest centre of each image, and its squared distance."""
    squares = np.square(x).sum(1)[:, None] - 2 * x @ centres.T + np.square(centres).sum(1)
    nearest = squares.argmin(1)
    return nearest, np.take_along_axis(squares, nearest[:, None], 1)[:, 0]


def _p_of_low_accuracy(right: NDArray[np.bool_], inside: NDArray[np.bool_]) -> float:
    """One-sided p of Fisher's exact test that the images inside are wrong no more often than all."""
    from scipy.stats import hypergeom

    wrong = ~right
    return float(hypergeom.sf(int(wrong[inside].sum()) - 1, len(right), int(wrong.sum()), int(inside.sum())))


def _detectable_gap(accuracy: float, size: int, rest: int, tests: int) -> float:
    """The smallest gap of accuracy that is found of `size` images against `rest` others, by the normal
    approximation, at the strictest level of Holm's correction over so many tests."""
    from scipy.special import ndtri

    strict, power = -float(ndtri(ALPHA / tests)), float(ndtri(POWER))
    if rest < 1:
        return math.inf
    for gap in np.arange(0.005, accuracy + 0.0025, 0.005):
        inside = max(0.0, accuracy - gap)
        pooled = (size * inside + rest * accuracy) / (size + rest)
        chance = math.sqrt(pooled * (1 - pooled) * (1 / size + 1 / rest))
        actual = math.sqrt(inside * (1 - inside) / size + accuracy * (1 - accuracy) / rest)
        if gap >= strict * chance + power * actual:
            return float(gap)
    return math.inf
