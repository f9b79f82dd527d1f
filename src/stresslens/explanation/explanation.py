"""What `sl.explain` returns."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from stresslens.core.errors import Notice


@dataclass(frozen=True)
class Explanation:
    """Attribution maps (N, H, W) float32 for the classes `answers` (N,).

    `signed`: values below 0 speak against the class. `quality` holds the checks with their intervals and
    what the maps fail; None where they were not asked for."""

    maps: np.ndarray
    answers: np.ndarray
    signed: bool
    unit: str
    notes: tuple[str, ...]
    quality: dict[str, Any] | None

    @property
    def worth(self) -> dict[str, Any] | None:
        """The name of `quality` in version 0.1.0."""
        warnings.warn("Explanation.worth is now quality; the old name still works", Notice, stacklevel=2)
        return self.quality
