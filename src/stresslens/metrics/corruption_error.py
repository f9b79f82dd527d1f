"""Mean corruption error (Hendrycks & Dietterich 2019, section 4): an error over corruptions and
severities, relative to that of a baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from stresslens.core.errors import DataError
from stresslens.core.types import Estimate
from stresslens.metrics.intervals import bounded_mean

ALEXNET: Mapping[str, float] = {
    "gaussian_noise": 0.886428,
    "shot_noise": 0.894468,
    "impulse_noise": 0.922640,
    "defocus_blur": 0.819880,
    "glass_blur": 0.826268,
    "motion_blur": 0.785948,
    "zoom_blur": 0.798360,
    "snow": 0.866816,
    "frost": 0.826572,
    "fog": 0.819324,
    "brightness": 0.564592,
    "contrast": 0.853204,
    "elastic_transform": 0.646056,
    "pixelate": 0.717840,
    "jpeg_compression": 0.606500,
}
"""AlexNet's error on ImageNet-C, the mean over five severities, as published by the authors
(github.com/hendrycks/robustness). Its keys are the fifteen corruptions of the benchmark."""


def corruption_errors(
    wrong: NDArray[np.bool_], names: Sequence[str], baseline: Mapping[str, float] | None
) -> tuple[dict[str, float], Estimate]:
    """The corruption error of each corruption, and their mean with its interval over images.

    `wrong` (corruptions, severities, n) says of which images the answer is wrong. CE of a corruption c
    is the sum of its errors over severities s, divided by that of the baseline:
    CE_c = Σ_s E(s,c) / Σ_s B(s,c). `baseline` has the mean over severities of B by corruption, taken as
    fixed; without it, CE_c is the mean error. The mean over corruptions is a mean over images, each
    with the value mean_c mean_s wrong / B_c; its interval is that of a bounded mean. Raises DataError
    for a baseline without one of the corruptions, or without any error.
    """
    for name in names:
        if baseline is not None and not baseline.get(name, 0) > 0:
            raise DataError(
                f"the baseline has no error for {name}, so that nothing can be divided by it; its "
                f"corruptions: {', '.join(baseline)}"
            )
    divisors = np.array([1.0 if baseline is None else baseline[name] for name in names])
    relative = wrong.mean(1) / divisors[:, None]  # (corruptions, n)
    errors = dict(zip(names, relative.mean(1).tolist()))
    return errors, bounded_mean(relative.mean(0), (0.0, float((1 / divisors).mean())))
