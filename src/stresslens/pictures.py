"""Picture files as the images that a model takes."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from stresslens.core.errors import DataError
from stresslens.core.types import Shape


def read_picture(file: Path, shape: Shape) -> Tensor:
    """A picture as uint8 (C,H,W) of the given shape: turned as its EXIF says, on white where transparent, cropped to the middle
    and scaled. Raises DataError when it cannot be decoded whole."""
    import numpy as np
    from PIL import Image, ImageOps, UnidentifiedImageError

    channels, height, width = shape
    if channels not in (1, 3):
        raise DataError(f"{file}: the model takes images of {channels} channels, which a picture file does not have")
    try:
        with Image.open(file) as opened:
            picture = ImageOps.exif_transpose(opened)
            picture.load()
    except FileNotFoundError:
        raise DataError(f"{file}: there is no such file") from None
    except (OSError, UnidentifiedImageError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{file}: cannot be decoded as a picture ({error})") from None
    if "A" in picture.getbands() or "transparency" in picture.info:
        rgba = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    picture = ImageOps.fit(picture.convert("L" if channels == 1 else "RGB"), (width, height))
    pixels = torch.from_numpy(np.array(picture))
    return pixels[None] if channels == 1 else pixels.permute(2, 0, 1)
