"""Pictures with their captions in one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stresslens.core.tracking import Pixels

COLUMNS = 3
LEAST = 150
"""Pixels of a picture's width, at least; smaller ones are enlarged a whole number of times."""


def sheet(pixels: Pixels, captions: Sequence[str]) -> Pixels:
    """Pictures (N, H, W, 3) in rows of three, each over its caption, which is cut to the picture's
    width; (height, width, 3)."""
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(12)
    scale = -(-LEAST // pixels.shape[2])
    height, width = scale * pixels.shape[1] + 24, scale * pixels.shape[2] + 8
    whole = Image.new("RGB", (COLUMNS * width, -(-len(pixels) // COLUMNS) * height), "white")
    draw = ImageDraw.Draw(whole)
    for k, (picture, caption) in enumerate(zip(pixels, captions)):
        left, top = k % COLUMNS * width, k // COLUMNS * height
        whole.paste(Image.fromarray(picture.repeat(scale, 0).repeat(scale, 1)), (left, top))
        while font.getlength(caption) > width - 8:
            caption = caption[:-2] + "…"
        draw.text((left, top + height - 14), caption, "black", font, anchor="lm")
    return np.asarray(whole)
