"""Images as classical features want them: grey, and large enough to have corners and edges."""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from stresslens.core.types import Count

Scale = Literal["auto"] | Count
"""How many times larger a picture is made; auto: as few times as bring its shorter side to the
pixels a feature asks for."""

LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def grey(images: NDArray[np.float32], scale: Scale, *, least: int) -> NDArray[np.uint8]:
    """images (N,C,H,W) in [0,1] → (N, scale·H, scale·W) of 0 to 255, by cubic interpolation; of
    three channels the luma, of other numbers the mean. `auto` brings the shorter side to at least
    `least` pixels."""
    weights = LUMA if images.shape[1] == 3 else np.full(images.shape[1], 1 / images.shape[1], np.float32)
    flat = np.asarray((np.einsum("nchw,c->nhw", images, weights).clip(0, 1) * 255).round(), np.uint8)
    height, width = flat.shape[1:]
    times = -(-least // min(height, width)) if scale == "auto" else scale
    if times == 1:
        return flat
    size = (times * width, times * height)
    return np.stack([cv2.resize(each, size, interpolation=cv2.INTER_CUBIC) for each in flat])
