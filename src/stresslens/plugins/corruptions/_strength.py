"""Strength of a corruption's severity, as in CIFAR-10-C and ImageNet-C, for any image size."""

from __future__ import annotations

import math
from typing import Literal

from torch import Tensor

Severity = Literal[1, 2, 3, 4, 5]
Levels = tuple[float, float, float, float, float]
SMALL, LARGE = 32, 224


def strength(x: Tensor, severity: Severity, small: Levels, large: Levels) -> float:
    """The strength for a severity: `small` up to 32 pixels, `large` from 224 pixels on.

    They are CIFAR-10-C's and ImageNet-C's values (Hendrycks & Dietterich 2019). In between, they
    are interpolated by the logarithm of the shorter side.
    """
    side = min(x.shape[-2:])
    share = min(1.0, max(0.0, math.log(side / SMALL) / math.log(LARGE / SMALL)))
    return (1 - share) * small[severity - 1] + share * large[severity - 1]
