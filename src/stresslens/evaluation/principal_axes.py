"""The first principal axes of many values, without scikit-learn, whose import takes a second."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

Floats32 = NDArray[np.float32]

MORE, ROUNDS = 10, 2
"""Random directions besides the axes, and rounds of power iteration."""


def principal_axes(centred: Floats32, axes: int, *, seed: int = 0) -> Floats32:
    """(D, axes) orthonormal axes along which rows (N, D) with mean 0 vary most; N and D are at least
    `axes`.

    A randomised singular value decomposition (Halko et al. 2011), equal to scikit-learn's
    `randomized_svd(centred, axes, n_iter=2, random_state=seed)` to the bit.
    """
    wide = len(centred) < centred.shape[1]
    rows = centred.T if wide else centred
    directions = np.random.RandomState(seed).normal(size=(rows.shape[1], axes + MORE)).astype(rows.dtype)
    for _ in range(ROUNDS):
        directions = rows.T @ (rows @ directions)
    span = linalg.qr(rows @ directions, mode="economic", check_finite=False)[0]
    inside, _, right = linalg.svd(span.T @ rows, full_matrices=False)
    left = span @ inside
    decides = right if wide else left.T  # the largest entry of each of these is made positive
    signs = np.where(decides.max(1) >= -decides.min(1), 1, -1).astype(decides.dtype)
    if wide:
        left *= signs
        return np.asarray(left[:, :axes])
    right *= signs[:, None]
    return np.asarray(right[:axes].T)
