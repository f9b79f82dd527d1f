"""The operations of RandAugment on a batch.

x (N, C, H, W) are images in [0, 1], `sign` (N, 1, 1, 1) is ±1 for each, and `strength` in [0, 1] is
the same for all. The caller clamps the results to [0, 1].
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Operation = Callable[[Tensor, Tensor, float], Tensor]


def identity(x: Tensor, sign: Tensor, strength: float) -> Tensor:
    return x


def shear_x(x: Tensor, sign: Tensor, strength: float) -> Tensor:
    """Shifts each row by up to 0.3 columns more than the one above; the upper left corner stays."""
    down, right = _pixel_centres(x)
    return _sample_at(x, down, right + 0.3 * strength * sign * down)


def shear_y(x: Tensor, sign: Tensor, strength: float) -> Tensor:
    down, right = _pixel_centres(x)
    return _sample_at(x, down + 0.3 * strength * sign * right, right)


def translate_x(x: Tensor, sign: Tensor, strength: float) -> Tensor:
    """Shifts by whole pixels, up to 150/331 of the width."""
    down, right = _pixel_centres(x)
    return _sample_at(x, down, right - sign * int(strength * 150 / 331 * x.shape[3]))


def translate_y(x: Tensor, sign: Tensor, strength: float) -> Tensor:
    down, right = _pixel_centres(x)
    return _sample_at(x, down - sign * int(strength * 150 / 331 * x.shape[2]), right)


def rotate(x: Tensor, sign: Tensor, strength: float) -> Tensor:
    """Rotates about the centre by up to 30 degrees, counter-clockwise if the sign is +1."""
    angle = math.radians(30 * strength)
    down, right = _pixel_centres(x)
    middle, centre = x.shape[2] / 2, x.shape[3] / 2
    down, right = down - middle, right - centre
    cos, sin = math.cos(angle), sign * math.sin(angle)
    return _sample_at(x, middle + cos * down + sin * right, centre + cos * right - sin * down)


def brightness(x: Tensor, sign: Tensor, strength: float) -> Tensor:
    return x * _factor(sign, strength)


def contrast(x: Tensor, sign: Tensor, strength: float) -> Tensor:
    """Scales the distance from the mean of the grey image."""
    mean = _grey(x).double().mean((1, 2, 3), keepdim=True).to(x.dtype)
    return mean + (x - mean) * _factor(sign, strength)


def colour(x: Tensor, sign: Tensor, strength: float) -> Tensor:
    """Scales the distance from the grey image."""
    grey = _grey(x)
    return grey + (x - grey) * _factor(sign, strength)


def sharpness(x: Tensor, sign: Tensor, strength: float) -> Tensor:
    """Scales the distance from a smoothed image; the border does not change.

    In the smoothed image a pixel has weight five, and each of its eight neighbours weight one.
    """
    if min(x.shape[2:]) < 3:
        return x
    inner = x[:, :, 1:-1, 1:-1]
    rows = x[:, :, :-2] + x[:, :, 1:-1] + x[:, :, 2:]
    smooth = (rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:] + 4 * inner) / 13
    sharper = x.clone()
    sharper[:, :, 1:-1, 1:-1] = smooth + (inner - smooth) * _factor(sign, strength)
    return sharper


def posterize(x: Tensor, sign: Tensor, strength: float) -> Tensor:
    """Keeps at least the four highest of each value's eight bits."""
    step = 1 << round(4 * strength)
    return (x * 255).round().div(step, rounding_mode="floor") * step / 255


def solarize(x: Tensor, sign: Tensor, strength: float) -> Tensor:
    """Inverts values of at least 1 - strength; at full strength all values."""
    return (1 - x).where(x >= 1 - strength, x)


def autocontrast(x: Tensor, sign: Tensor, strength: float) -> Tensor:
    """Each channel's darkest value becomes 0 and its brightest 1."""
    low, high = x.amin((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
    return ((x - low) / (high - low)).where(high > low, x)


def equalize(x: Tensor, sign: Tensor, strength: float) -> Tensor:
    """Equalises the histogram of each channel's values (eight bits), as PIL does.

    Like PIL, it does not change a channel with fewer than 255 pixels below its brightest value.
    """
    levels = (x * 255).round().long().flatten(2)  # (N, C, H·W)
    counts = torch.zeros(*x.shape[:2], 256, dtype=torch.int64, device=x.device).scatter_add_(
        2, levels, torch.ones_like(levels)
    )
    brightest = counts.gather(2, levels.amax(2, keepdim=True))
    step = (levels.shape[2] - brightest) // 255  # (N, C, 1)
    below = counts.cumsum(2) - counts
    table = ((below + step // 2) // step.clamp_min(1)).clamp_max(255)
    equal = table.gather(2, levels).reshape(x.shape).to(x.dtype) / 255
    return equal.where(step[..., None] > 0, x)


def _factor(sign: Tensor, strength: float) -> Tensor:
    return 1 + 0.9 * strength * sign


def _grey(x: Tensor) -> Tensor:
    """(N, 1, H, W) the luminance of three channels, or the mean of any other number of channels."""
    if x.shape[1] != 3:
        return x.mean(1, keepdim=True)
    return 0.2989 * x[:, :1] + 0.587 * x[:, 1:2] + 0.114 * x[:, 2:]


def _pixel_centres(x: Tensor) -> tuple[Tensor, Tensor]:
    """The row and column coordinates of pixel centres: (1, 1, H, 1) and (1, 1, 1, W)."""
    down, right = (torch.arange(length, dtype=x.dtype, device=x.device) + 0.5 for length in x.shape[2:])
    return down[None, None, :, None], right[None, None, None, :]


def _sample_at(x: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """Takes each pixel from the coordinates given for it, with bilinear interpolation.

    The coordinates are broadcast to (N, 1, H, W). Outside the image it is black.
    """
    n, _, height, width = x.shape
    scaled = [
        (2 * coordinate / length - 1).expand(n, 1, height, width)
        for coordinate, length in ((right, width), (down, height))
    ]
    return F.grid_sample(x, torch.cat(scaled, 1).permute(0, 2, 3, 1), align_corners=False)
