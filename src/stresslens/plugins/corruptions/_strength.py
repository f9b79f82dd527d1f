"""How strong a severity is: as in the benchmarks of corruptions, at any size of image."""

from __future__ import annotations

import math
from typing import Literal

from torch import Tensor

Severity = Literal[1, 2, 3, 4, 5]
Levels = tuple[float, float, float, float, float]
SMALL, LARGE = 32, 224


def strength(x: Tensor, severity: Severity, small: Levels, large: Levels) -> float:
    """CIFAR-10-C's value for images of up to 32 pixels, ImageNet-C's from 224 on (Hendrycks &
    Dietterich 2019), and in between the mixture of both by the logarithm of the shorter side."""
    side = min(x.shape[-2:])
    share = min(1.0, max(0.0, math.log(side / SMALL) / math.log(LARGE / SMALL)))
    return (1 - share) * small[severity - 1] + share * large[severity - 1]
