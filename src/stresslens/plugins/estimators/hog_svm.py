from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from stresslens.core.types import Arrays, Count, Estimator, Positive
from stresslens.plugins.estimators import _svm
from stresslens.plugins.estimators._pictures import Scale, grey

EXTRA = "classical"
LEAST = 28
PIECE = 512
CLIP = 0.2


def hog_svm(
    seed: int,
    *,
    cell: Annotated[int, Field(ge=2)] = 4,
    bins: Count = 9,
    scale: Scale = "auto",
    kernel: _svm.Kernel = "chi2",
    C: Positive = 1.0,
    landmarks: Count = 500,
) -> Estimator:
    """SVM on histograms of oriented gradients (HOG; Dalal & Triggs 2005).

    The grey image is enlarged by `scale` (auto: to at least 28 pixels) and divided into cells of
    `cell` pixels. Each cell has a histogram over `bins` unsigned directions, weighted by the
    gradient's length. Blocks of 2×2 cells, which overlap by one cell, are normalised (L2, clipped
    at 0.2, L2). Unlike in the paper, a pixel votes only for its own cell. The SVM (penalty `C`)
    gets standardised features with `kernel` linear or rbf, and plain ones with chi2; kernels are
    approximated over `landmarks` training images.
    """
    return _Hog(cell, bins, scale, _svm.Machine(kernel, C, landmarks, seed))


def gradients_of(pictures: NDArray[np.uint8], *, cell: int, bins: int) -> NDArray[np.float64]:
    """(N, D) block-normalised histograms of images (N,H,W); the border is repeated to fill the last
    cells."""
    short = [-side % cell for side in pictures.shape[1:]]
    whole = np.pad(pictures.astype(np.float64), ((0, 0), (0, short[0]), (0, short[1])), mode="edge")
    down, across = np.gradient(whole, axis=(1, 2))
    length = np.hypot(down, across)
    position = np.arctan2(down, across) % np.pi * bins / np.pi - 0.5
    lower = np.floor(position)
    n, height, width = whole.shape
    cells = np.zeros((n, height // cell, width // cell, bins))
    for which, share in ((lower, lower + 1 - position), (lower + 1, position - lower)):
        for k in range(bins):
            votes = np.where(which.astype(int) % bins == k, share * length, 0)
            cells[..., k] += votes.reshape(n, height // cell, cell, width // cell, cell).sum((2, 4))
    rows, columns = (max(1, side - 1) for side in cells.shape[1:3])
    corners = [
        cells[:, i : i + rows, j : j + columns]
        for i in (0, 1)
        for j in (0, 1)
        if i < cells.shape[1] and j < cells.shape[2]
    ]
    blocks = _l2_normalised(_l2_normalised(np.concatenate(corners, axis=3)).clip(max=CLIP))
    return blocks.reshape(n, -1)


def _l2_normalised(blocks: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(blocks / (np.linalg.norm(blocks, axis=3, keepdims=True) + 1e-9))


@dataclass
class _Hog:
    cell: int
    bins: int
    scale: Scale
    machine: _svm.Machine
    arrays: Arrays = field(default_factory=dict)

    def fit(self, images: NDArray[np.float32], labels: NDArray[np.int64]) -> None:
        self.arrays = self.machine.fitted(self._features(images), labels)

    def scores(self, images: NDArray[np.float32]) -> NDArray[np.floating]:
        return self.machine.decisions(self._features(images), self.arrays)

    def _features(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        pieces = (
            grey(images[start : start + PIECE], self.scale, least=LEAST)
            for start in range(0, len(images), PIECE)
        )
        return np.concatenate(
            [gradients_of(piece, cell=self.cell, bins=self.bins).astype(np.float32) for piece in pieces]
        )
