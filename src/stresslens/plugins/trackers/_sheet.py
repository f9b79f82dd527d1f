"""Images with captions as one sheet."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stresslens.core.tracking import Pixels

COLUMNS = 3
LEAST = 150
"""Least width of an image in pixels; smaller images are enlarged by an integer factor."""


def sheet(pixels: Pixels, captions: Sequence[str]) -> Pixels:
    """Images (N, H, W, 3) in rows of three as one image (height, width, 3).

    The captions are below the images, cut to their width.
    """
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(12)
    scale = -(-LEAST // pixels.shape[2])
    height, width = scale * pixels.shape[1] + 24, scale * pixels.shape[2] + 8
    whole = Image.new("RGB", (COLUMNS * width, -(-len(pixels) // COLUMNS) * height), "white")
    draw = ImageDraw.Draw(whole)
    for k, (image, caption) in enumerate(zip(pixels, captions)):
        left, top = k % COLUMNS * width, k // COLUMNS * height
        whole.paste(Image.fromarray(image.repeat(scale, 0).repeat(scale, 1)), (left, top))
        while font.getlength(caption) > width - 8:
            caption = caption[:-2] + "…"
        draw.text((left, top + height - 14), caption, "black", font, anchor="lm")
    return np.asarray(whole)
