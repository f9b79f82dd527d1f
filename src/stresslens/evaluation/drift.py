"""Drift: how far two sets of pictures differ, by a classifier that tells them apart (the domain
classifier of Rabanser, Günnemann & Lipton 2019) and property by property."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from stresslens.core.errors import DataError
from stresslens.core.image_files import digest
from stresslens.core.progress import advance
from stresslens.core.text import counted
from stresslens.core.types import Shape
from stresslens.evaluation.data_comparison import (
    ALPHA,
    ComparedSet,
    DataComparison,
    PropertyDifference,
    UnlikeImage,
    copies_note,
    said,
)
from stresslens.evaluation.near_duplicates import (
    copies_are_distinguishable,
    exact_pairs,
    near_pairs,
    small_pictures,
)
from stresslens.evaluation.network_features import OfNetwork
from stresslens.evaluation.picture_features import picture_features, picture_properties
from stresslens.evaluation.picture_set import PictureSet, common_shape, names_left_out
from stresslens.metrics.intervals import Floats, difference_of_proportions, wilson
from stresslens.metrics.paired import holm
from stresslens.metrics.slices import p_of_no_difference
from stresslens.metrics.two_samples import MeanDifference, discriminant_test, mean_difference

MOST = 5000
"""Images of a set that are compared, if it has more."""
LEAST = 20
"""Fewer images of a set are refused."""
NEAREST, LISTED = 5, 10
"""An image of B is like A if its fifth nearest image of A is near; so many that are least like A are
listed."""
CLUSTERS = 10
"""Of the pictures of a set without classes. By ten clusters, 2.7 % of the pairs of a cluster of MNIST are
look-alikes and 0.05 % of CIFAR-10; by the classes 3.1 % and 0.02 %."""
FAR = 10.0
"""Differences of a standardised feature are cut here."""


@dataclass(frozen=True)
class _Observed:
    """What was seen of the readable pictures of a set: positions, features (n, D), properties and facts of
    the files (n,) by name, small grey pictures (n, 32, 32) and digests of the pixels (n,)."""

    rows: NDArray[np.int64]
    features: Floats
    properties: dict[str, Floats]
    small: NDArray[np.uint8]
    digests: NDArray[np.void]

    def select(self, kept: NDArray[np.bool_]) -> _Observed:
        properties = {name: values[kept] for name, values in self.properties.items()}
        return _Observed(
            self.rows[kept], self.features[kept], properties, self.small[kept], self.digests[kept]
        )


# long: one step after the other, each in its own function
def compare_sets(
    a: PictureSet, b: PictureSet, *, seed: int = 0, network: OfNetwork | None = None
) -> DataComparison:
    """How far the pictures of `b` differ from those of `a`.

    The features are `picture_features`, or those of `network`, which gets images of A's shape. Pictures
    in both sets are left out, and copies within a set count once. Raises DataError where fewer than
    `LEAST` pictures are left in a set.
    """
    shape, note = (a.shape, "") if network is not None and a.shape else common_shape(a, b)
    unreadable: dict[str, str] = {}
    a, b = a.prepared_like(b), b.prepared_like(a)
    sets = [
        _observed(each, shape, unreadable, network, f"{which}: {each.name}")
        for which, each in zip("AB", (a, b))
    ]
    names = [[each.names[row] for row in seen.rows] for each, seen in zip((a, b), sets)]
    pairs, looked = _copies(a, b, *sets)
    shared, kept = _without_copies(pairs, len(sets[0].rows), len(sets[1].rows))
    first, second = (seen.select(rows) for seen, rows in zip(sets, kept))
    for which, each, left, rows in zip("AB", (a, b), (first, second), kept):
        if len(left.rows) < LEAST:
            raise DataError(
                f"{which}, {each.name}: {counted(len(left.rows), 'image')} of {len(rows):,} left that the "
                f"other set does not have and that repeat no other; a comparison needs at least {LEAST}"
            )
    is_b = np.repeat([False, True], [len(first.rows), len(second.rows)])
    test = discriminant_test(np.concatenate([first.features, second.features]), is_b, seed=seed)
    differences = _property_differences(first, second)
    shares, of_classes = _class_shares(a, b, first, second)
    differences |= of_classes
    of_properties = holm({name: each.p for name, each in differences.items()})
    shared_names = tuple((names[0][i], names[1][j]) for i, j in shared)
    in_both = [len(np.unique(shared[:, k])) for k in (0, 1)]
    repeats = [int((~rows).sum()) - n for rows, n in zip(kept, in_both)]
    return DataComparison(
        ComparedSet(a.name, a.images, len(a), len(first.rows)),
        ComparedSet(b.name, b.images, len(b), len(second.rows)),
        "pictures" if network is None else "network",
        test.auroc,
        test.p,
        _half(test.p),
        test.detectable(ALPHA / 2),
        tuple(
            PropertyDifference(name, *d.means, d.difference, d.standardised, d.p, _half(of_properties[name]))
            for name, d in differences.items()
        ),
        shares,
        shared_names,
        _least_like(first, second, [b.names[row] for row in second.rows]),
        said([note, looked, *map(copies_note, "AB", repeats), names_left_out(unreadable), _on_groups(a, b)]),
    )


def _on_groups(a: PictureSet, b: PictureSet) -> str:
    """A note where images belong together; empty otherwise."""
    if not any("group" in split.columns for each in (a, b) for split in each.splits):
        return ""
    return (
        "images of one group count as independent here; where they are alike, p and intervals are too small"
    )


def _half(p: float) -> float:
    """A p value that is compared with half of `ALPHA`: one half is the classifier's, one that of the
    properties together."""
    return min(1.0, 2 * p)


def _observed(
    pictures: PictureSet, shape: Shape, unreadable: dict[str, str], network: OfNetwork | None, what: str
) -> _Observed:
    rows, features, small, digests = [], [], [], []
    properties: dict[str, list[NDArray[np.floating]]] = {}
    for piece in pictures.pieces(shape, unreadable):
        rows.append(piece.rows)
        features.append((picture_features(piece.x) if network is None else network(piece.x)).double().numpy())
        small.append(small_pictures(piece.x.mean(1, keepdim=True)))
        pixels = (piece.x * 255).round().to(torch.uint8).numpy()
        digests += [digest(np.ascontiguousarray(image).tobytes()) for image in pixels]
        found = {name: values.double().numpy() for name, values in picture_properties(piece.x).items()}
        for name, values in {**found, **_of_files(piece.facts)}.items():
            properties.setdefault(name, []).append(values)
        advance(what, int(piece.rows[-1]) + 1, len(pictures))
    if not rows:
        raise DataError(f"{pictures.name}: {names_left_out(unreadable) or 'there is no image'}")
    values = np.concatenate(features)
    if not np.isfinite(values).all():
        raise DataError(f"{pictures.name}: the features of the network are not finite")
    columns = {name: np.concatenate(parts) for name, parts in properties.items()}
    found_small = np.concatenate(small)
    return _Observed(
        np.concatenate(rows), values, columns, found_small, np.frombuffer(b"".join(digests), "V16")
    )


def _of_files(facts: dict[str, NDArray[np.int64]]) -> dict[str, Floats]:
    found = {}
    if "width" in facts and "height" in facts:
        width, height = facts["width"].astype(float), facts["height"].astype(float)
        found = {"size, pixels": np.sqrt(width * height), "aspect ratio": width / height}
    if "bytes" in facts:
        found["file, bytes"] = facts["bytes"].astype(float)
    return found


def _copies(
    a: PictureSet, b: PictureSet, first: _Observed, second: _Observed
) -> tuple[NDArray[np.int64], str]:
    """(P, 2) pairs of copies among the pictures of both sets, A's first, and what was not looked for."""
    part = np.repeat([0, 1], [len(first.rows), len(second.rows)])
    exact = exact_pairs(np.concatenate([first.digests, second.digests]), part)
    for which, pictures, seen in (("A", a, first), ("B", b, second)):
        if not copies_are_distinguishable(seen.small, _kinds(pictures, seen)):
            return exact, (
                f"only copies with the same pixels were looked for: images of {which} of one class are so "
                "similar that other copies cannot be distinguished from look-alikes"
            )
    near = near_pairs(np.concatenate([first.small, second.small]), exact, "comparing pairs of images")
    return np.concatenate([exact, near]), ""


def _kinds(pictures: PictureSet, seen: _Observed) -> NDArray[np.int64]:
    """(n,) the classes of the pictures; without classes, clusters of even smaller pictures in their place."""
    if len(pictures.labels):
        return pictures.labels[seen.rows]
    from sklearn.cluster import KMeans

    tiny = seen.small[:, ::4, ::4].reshape(len(seen.rows), -1).astype(np.float64)
    clusters = min(CLUSTERS, len(np.unique(tiny, axis=0)))
    return np.asarray(KMeans(clusters, n_init=2, random_state=0).fit_predict(tiny), np.int64)


def _without_copies(
    pairs: NDArray[np.int64], n: int, m: int
) -> tuple[NDArray[np.int64], tuple[NDArray[np.bool_], NDArray[np.bool_]]]:
    """Pairs (P, 2) of positions in A and in B that are copies, and which pictures of A (n,) and of B (m,)
    are kept: none that the other set has, and of copies within a set the first."""
    kept = np.ones(n + m, bool)
    across = (pairs[:, 0] < n) & (pairs[:, 1] >= n)
    kept[pairs[across].ravel()] = False
    kept[pairs[~across, 1]] = False
    return pairs[across] - np.array([0, n]), (kept[:n], kept[n:])


def _property_differences(first: _Observed, second: _Observed) -> dict[str, MeanDifference]:
    """The differences of the properties that both sets have and that vary."""
    return {
        name: mean_difference(values, second.properties[name])
        for name, values in first.properties.items()
        if name in second.properties and np.ptp(np.concatenate([values, second.properties[name]])) > 0
    }


def _class_shares(
    a: PictureSet, b: PictureSet, first: _Observed, second: _Observed
) -> tuple[tuple[tuple[str, float, float], ...], dict[str, MeanDifference]]:
    """Each class's share in A and in B, and the test of all of them, by the name of the one that moved
    most; nothing unless the classes of one set are all among those of the other."""
    ours, theirs = list(a.classes), list(b.classes)
    if not ours or not theirs or not (set(ours) <= set(theirs) or set(theirs) <= set(ours)):
        return (), {}
    every = ours if set(theirs) <= set(ours) else theirs
    number = {name: k for k, name in enumerate(every)}
    groups = [
        np.array([number[each.classes[label]] for label in each.labels[seen.rows]])
        for each, seen in ((a, first), (b, second))
    ]
    counts = np.stack([np.bincount(group, minlength=len(every)) for group in groups])
    shares = counts / counts.sum(1, keepdims=True)
    table = tuple((name, float(shares[0, k]), float(shares[1, k])) for k, name in enumerate(every))
    most = int(np.abs(shares[1] - shares[0]).argmax())
    _, group = np.unique(np.concatenate(groups), return_inverse=True)
    is_b = np.repeat([False, True], [len(each) for each in groups])
    p = p_of_no_difference(is_b, group)
    one, other = (wilson(int(counts[k, most]), int(counts[k].sum())) for k in (0, 1))
    effect = 2 * (math.asin(math.sqrt(other.value)) - math.asin(math.sqrt(one.value)))
    difference = MeanDifference((one.value, other.value), difference_of_proportions(one, other), effect, p)
    return table, {f"class shares (most: {every[most]})": difference}


def _least_like(first: _Observed, second: _Observed, names: list[str]) -> tuple[UnlikeImage, ...]:
    """The pictures of B that are farthest from A, in features standardised by A."""
    own, others = first.features, second.features
    spread = np.maximum(own.std(0), 0.1 * np.concatenate([own, others]).std(0))
    spread = np.where(spread > 0, spread, 1.0)
    x, y = (((each - own.mean(0)) / spread).clip(-FAR, FAR) for each in (own, others))
    within, across = _fifth_nearest(x, x, NEAREST), _fifth_nearest(y, x, NEAREST - 1)
    farther = len(within) - np.searchsorted(np.sort(within), across, side="left")
    p = (1 + farther) / (1 + len(within))
    order = np.argsort(-across, kind="stable")[:LISTED]
    return tuple(UnlikeImage(names[k], float(across[k]), float(p[k])) for k in order)


def _fifth_nearest(values: Floats, others: Floats, place: int) -> Floats:
    """(N,) the distances of values (N, D) to the nearest of `others` but `place`."""
    squares = np.square(others).sum(1)
    found = []
    for start in range(0, len(values), 512):
        piece = values[start : start + 512]
        distances = np.square(piece).sum(1)[:, None] - 2 * piece @ others.T + squares
        found.append(np.partition(distances, place, axis=1)[:, place])
    return np.asarray(np.sqrt(np.concatenate(found).clip(0)))
