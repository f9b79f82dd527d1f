"""What a detector of out-of-distribution images returns."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats64 = NDArray[np.float64]


class OODScore(Protocol):
    """Scores images by how unlike the training images they are: features (N, D) and logits (N, K) →
    (N,), larger for images that are farther out of distribution."""

    def __call__(self, features: Floats64, logits: Floats64) -> Floats64: ...
