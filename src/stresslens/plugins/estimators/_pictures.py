"""Preparation of images for classical features (HOG, SIFT): grey, and enlarged if small."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from stresslens.core.types import Count

Scale = Literal["auto"] | Count
"""The factor by which images are enlarged. auto: the smallest factor that gives the shorter side
the pixels that a feature needs."""

LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def grey(images: NDArray[np.float32], scale: Scale, *, least: int) -> NDArray[np.uint8]:
    """images (N,C,H,W) in [0,1] → (N, scale·H, scale·W) of 0 to 255, by cubic interpolation.

    Grey is the luma of three channels, or the mean of any other number. `auto` enlarges the shorter
    side to at least `least` pixels.
    """
    weights = LUMA if images.shape[1] == 3 else np.full(images.shape[1], 1 / images.shape[1], np.float32)
    flat = np.asarray((np.einsum("nchw,c->nhw", images, weights).clip(0, 1) * 255).round(), np.uint8)
    height, width = flat.shape[1:]
    factor = -(-least // min(height, width)) if scale == "auto" else scale
    if factor == 1:
        return flat
    import cv2

    size = (factor * width, factor * height)
    return np.stack([cv2.resize(image, size, interpolation=cv2.INTER_CUBIC) for image in flat])
