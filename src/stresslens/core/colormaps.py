"""Colormaps for numbers; they can also be read with red-green colour blindness."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SIGNED = ((5, 48, 97), (67, 147, 195), (247, 247, 247), (214, 96, 77), (103, 0, 31))
"""Blue for negative values, white for 0, red for positive values (ColorBrewer's RdBu, reversed)."""
UNSIGNED = ((255, 255, 255), (253, 212, 158), (252, 141, 89), (215, 48, 31), (127, 0, 0))
"""White for 0, darker for larger values (ColorBrewer's OrRd)."""


def coloured(values: NDArray[np.floating], limit: float, *, signed: bool) -> NDArray[np.uint8]:
    """(…, 3) colours of values in [0, limit], or [-limit, limit] if signed.

    Values outside have the colour of the nearer end.
    """
    stops = np.array(SIGNED if signed else UNSIGNED, float)
    share = np.asarray(values, float) / limit if limit > 0 else np.zeros(np.shape(values))
    position = np.clip((share + 1) / 2 if signed else share, 0, 1) * (len(stops) - 1)
    below = np.minimum(position.astype(int), len(stops) - 2)
    between = (position - below)[..., None]
    return np.asarray((stops[below] * (1 - between) + stops[below + 1] * between).round(), np.uint8)


def limit_of(values: NDArray[np.floating]) -> float:
    """The limit of a colour scale: the 99.5th percentile of |values|, or the largest if that is
    0."""
    sizes = np.abs(np.asarray(values, float)).ravel()
    if not len(sizes):
        return 0.0
    return float(np.quantile(sizes, 0.995)) or float(sizes.max())


def bar(limit: float, *, signed: bool, width: int = 96, height: int = 10) -> NDArray[np.uint8]:
    """(height, width, 3) the colour scale as an image, from its lower end to `limit`."""
    values = np.linspace(-limit if signed else 0.0, limit, width)
    return np.repeat(coloured(values, limit, signed=signed)[None], height, axis=0)
