from __future__ import annotations

import torch
from torch import Tensor

from stresslens.core.findings import no_sign, sign
from stresslens.core.types import Finding

AUDIT = "input range"


def input_range(images: tuple[Tensor, Tensor]) -> Finding:
    """The attacked images are not in [0, 1], or use little of it (the brightest pixel is below
    0.05).

    The radius then has another meaning than its value says, which is a serious sign.
    """
    x, _ = images
    low, high = float(x.min()), float(x.max())
    if not torch.isfinite(x).all() or low < 0 or high > 1:
        return sign(
            AUDIT,
            f"the {len(x):,} images range from {low:.3g} to {high:.3g}",
            len(x),
            "Give images as floats in [0, 1] (uint8 divided by 255, once), "
            "and make normalisation the model's first layer.",
        )
    if high < 0.05:
        return sign(
            AUDIT,
            f"the brightest pixel of {len(x):,} images is {high:.3g}",
            len(x),
            "The images seem to have been divided by 255 twice; radii are then far larger than they look.",
        )
    return no_sign(AUDIT, f"the {len(x):,} images lie between {low:.3g} and {high:.3g}", len(x))
