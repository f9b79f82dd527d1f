"""Random pictures for small data sets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

EACH, TESTED = 5, 2
"""Pictures of each class among the training pictures, and among those of any other part."""


class Maker:
    """Random pictures of one size, all different."""

    def __init__(self, height: int, width: int) -> None:
        self.size, self.numbers = (height, width), np.random.default_rng(0)

    def pixels(self, n: int, channels: int = 3) -> np.ndarray:
        """(n,H,W,C), or (n,H,W) for one channel."""
        shape = (n, *self.size) + ((channels,) if channels > 1 else ())
        return self.numbers.integers(0, 256, shape, dtype=np.uint8)

    def save(self, path: Path, channels: int = 3) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(self.pixels(1, channels)[0]).save(path)


def labels_of(classes: int, each: int) -> np.ndarray:
    return np.tile(np.arange(classes), each)
