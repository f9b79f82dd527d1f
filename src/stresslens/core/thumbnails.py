"""Small pictures as addresses that hold the picture itself (`data:`)."""

from __future__ import annotations

import base64
import io

import numpy as np
from numpy.typing import NDArray

LOSSLESS = 32
"""Up to this number of pixels a side, a picture is a PNG; a larger one is a JPEG."""
SIDE = 72
"""The longer side of a small picture has at most this many pixels."""


def data_address(pixels: NDArray[np.uint8], side: int = SIDE) -> str:
    """The address of an image (H, W) or (H, W, 3), reduced so that no side is above `side`."""
    from PIL import Image

    picture = Image.fromarray(reduced(pixels, side))
    content = io.BytesIO()
    if max(picture.size) <= LOSSLESS:
        picture.save(content, format="png", optimize=True)
        kind = "png"
    else:
        picture.save(content, format="jpeg", quality=80)
        kind = "jpeg"
    return image_address(content.getvalue(), kind)


def image_address(content: bytes, kind: str) -> str:
    """The address that holds the content of an image file of this kind (png, webp, svg+xml, …)."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def reduced(pixels: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """The image (H, W) or (H, W, 3), made smaller so that no side is above `side`."""
    from PIL import Image

    if max(pixels.shape[:2]) <= side:
        return pixels
    picture = Image.fromarray(pixels)
    picture.thumbnail((side, side))
    return np.asarray(picture)
