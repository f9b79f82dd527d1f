from __future__ import annotations

import numpy as np

from stresslens.core.detectors import Floats64, OODScore
from stresslens.core.types import Count

TINY = 1e-10
VALUES = 2**23
"""Distances that are computed at a time."""


def knn(features: Floats64, *, k: Count = 50) -> OODScore:
    """The distance to the k-th nearest training image (Sun et al. 2022), of features of length one.

    With fewer than k training images it is the distance to the farthest.
    """
    known = _normalized(features)
    place = min(k, len(known)) - 1

    def score(features: Floats64, logits: Floats64) -> Floats64:
        size = max(1, VALUES // len(known))
        parts = [_normalized(features[start : start + size]) for start in range(0, len(features), size)]
        found = [np.partition(_squares(part, known), place, axis=1)[:, place] for part in parts]
        return np.asarray(np.sqrt(np.concatenate([*found, np.empty(0)])))

    return score


def _normalized(features: Floats64) -> Floats64:
    return np.asarray(features / (np.linalg.norm(features, axis=1, keepdims=True) + TINY))


def _squares(a: Floats64, b: Floats64) -> Floats64:
    lengths = np.square(a).sum(1)[:, None] + np.square(b).sum(1)
    return np.asarray((lengths - 2 * a @ b.T).clip(0))
