"""Images of more than 8 bits: their largest value, the value of white, and their 8-bit form.

A file of 16 bits often holds the 10, 12 or 14 bits of a camera, and does not say so.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stresslens.core.extras import extra

WHITE = 65_535
"""White in a file of 16 bits, unless something else is known."""

WHITES = (255, 1_023, 4_095, 16_383, WHITE)
"""White for 8, 10, 12, 14 and 16 bits."""


def white_for(largest: int) -> int:
    """The lowest value of white that holds `largest`, the largest value of all training images."""
    return next(white for white in WHITES if largest <= white)


def is_deep_grey(picture: Image.Image) -> bool:
    """Whether Pillow opened the image as grey values of more than 8 bits."""
    return picture.mode.startswith("I")


def is_deep_colour(picture: Image.Image, content: bytes) -> bool:
    """Whether a PNG or TIFF with several channels has 16 bits in each; Pillow reads the upper 8."""
    if picture.format == "PNG":  # bit depth and colour type in the header
        return content[24] == 16 and content[25] != 0
    bits: Any = getattr(picture, "tag_v2", {}).get(258, ()) if picture.format == "TIFF" else ()
    return len(bits) > 1 and max(bits) == 16


def peak(picture: Image.Image, content: bytes) -> int:
    """The largest value of an image of more than 8 bits; 0 for any other."""
    if is_deep_grey(picture):
        return max(0, int(np.asarray(picture).max()))
    if is_deep_colour(picture, content):
        upper = int(np.asarray(picture.convert("RGB")).max())
        return upper << 8 | 0xFF if upper else 0
    return 0


def eight_bits(values: NDArray[Any], white: int) -> NDArray[np.uint8]:
    """Values from 0 to `white` as 0 to 255, rounded; larger values become white. Of 16 bits the upper
    8 are taken."""
    if white == WHITE:
        scaled: NDArray[Any] = values >> 8
    else:
        scaled = (np.minimum(values, white).astype(np.int64) * 255 + white // 2) // white
    return scaled.astype(np.uint8)


def scaled_colours(picture: Image.Image, content: bytes, white: int) -> Image.Image:
    """An image that `is_deep_colour`, as 8-bit RGB or RGBA with this value of white."""
    with extra("classical", "a picture of 16 bits for each colour"):
        import cv2

    values: Any = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None or values.ndim != 3 or values.dtype != np.uint16:
        raise ValueError("its 16 bits for each channel cannot be read; save it with 8 bits")
    colours = eight_bits(values[..., 2::-1], white)
    alpha = [(values[..., 3:] >> 8).astype(np.uint8)] if values.shape[2] == 4 else []
    scaled = Image.fromarray(np.ascontiguousarray(np.concatenate([colours, *alpha], 2)))
    scaled.info.update({key: value for key, value in picture.info.items() if key == "exif"})
    return scaled


def settings_in_words(white: int, deep: int, largest: int, above: int) -> str:
    """What was done with `deep` images of more than 8 bits, for a person. `largest` is the largest value
    of the training images; `above` is the number of other images with a value above white."""
    cut = f"; {above} other images have brighter pixels, which become white" if above else ""
    return (
        f"{deep} images have more than 8 bits: the largest value of the training images is {largest:,}, so "
        f"white is {white:,} (another: `white`){cut}; pixels are kept with 8 bits, 256 levels"
    )
