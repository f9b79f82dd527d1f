"""Do the corrected t test and its interval hold over folds? Nearest centroids on two Gaussians.

python benchmarks/folds.py       # 1,000 data sets a row; also a part of verdicts.py
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from stresslens.metrics.paired import resampled

Array = NDArray[np.floating[Any]]

LEVEL, ALPHA = 0.95, 0.05
FIRST, OTHER, ALL = slice(0, 10), slice(10, 20), slice(0, 20)
"""Features that a classifier sees of 20, each as good as the next."""


def centroids(x: Array, y: Array, train: NDArray[np.bool_], features: slice) -> NDArray[np.bool_]:
    """Nearest class centroid fitted on `train` (images,): whether each image is right."""
    kept = x[:, features]
    low, high = (kept[train & (y == k)].mean(0) for k in (0, 1))
    right: NDArray[np.bool_] = ((kept - (high + low) / 2) @ (high - low) > 0) == (y == 1)
    return right


def folds(studies: int) -> None:
    """k-fold with real classifiers on small data: two that see other, equally good features, or one
    that sees more."""
    print(
        "\nNearest centroid on two Gaussians, 5-fold × repetitions: false verdicts, coverage, power %; in "
        "brackets the plain t test"
    )
    random = np.random.default_rng(2)
    for n, repetitions in itertools.product((60, 100, 300), (1, 2, 3)):
        y = np.arange(n) % 2
        equal, better, plain = [], [], []
        truth = expected_difference(n - n // 5)
        for _ in range(studies):
            x = random.standard_normal((n, 20)) + 0.4 * y[:, None]
            other: list[float] = []
            more: list[float] = []
            for _ in range(repetitions):
                fold = random.permutation(n) % 5
                for k in range(5):
                    a, b, c = (
                        centroids(x, y, fold != k, part)[fold == k].mean() for part in (FIRST, OTHER, ALL)
                    )
                    other.append(b - a)
                    more.append(c - a)
            margin, p = resampled(np.array(other), 1 / 4, grain=5 / n, level=LEVEL)
            equal.append((p < ALPHA, abs(np.mean(other)) <= margin))
            plain.append(resampled(np.array(other), 0.0, level=LEVEL)[1] < ALPHA)
            margin, p = resampled(np.array(more), 1 / 4, grain=5 / n, level=LEVEL)
            better.append((p < ALPHA, abs(np.mean(more) - truth) <= margin))
        (false, covers), (power, covers_better) = (np.mean(each, 0) for each in (equal, better))
        print(
            f"{n:5} images × {repetitions}: false {100 * false:4.1f} ({100 * np.mean(plain):4.1f}), cover "
            f"{100 * covers:.1f} and "
            f"{100 * covers_better:.1f}, power {100 * power:3.0f} (b better by {100 * truth:.1f} points)"
        )


def expected_difference(train: int) -> float:
    """Accuracy with 20 features minus with 10, over training sets of this size, each scored in
    closed form."""
    random, y = np.random.default_rng(3), np.arange(train) % 2
    x = random.standard_normal((20_000, train, 20)).astype(np.float32) + np.float32(0.4) * y[:, None].astype(
        np.float32
    )
    low, high = (x[:, y == k].mean(1) for k in (0, 1))
    accuracy = []
    for features in (FIRST, ALL):
        towards, middle = (high - low)[:, features], ((high + low) / 2)[:, features]
        size = np.linalg.norm(towards, axis=1)
        sides = [
            sign * (towards * (at - middle)).sum(1) / size for sign, at in ((-1, 0.0), (1, np.float32(0.4)))
        ]
        accuracy.append(np.mean([ndtr(side).mean() for side in sides]))
    return float(accuracy[1] - accuracy[0])


if __name__ == "__main__":
    folds(1000)
