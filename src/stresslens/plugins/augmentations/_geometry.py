"""Images sheared, shifted and rotated, each by its own amount.

x (N, C, H, W) are images in [0, 1]; `amount` (N, 1, 1, 1) has the dtype of x. Outside of an image it
is black.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Interpolation = Literal["bilinear", "nearest"]


def shear_x(x: Tensor, amount: Tensor) -> Tensor:
    """Each row is shifted by `amount` columns more than the one above; the upper left corner stays."""
    down, right = _pixel_centres(x)
    return _sample_at(x, down, right + amount * down)


def shear_y(x: Tensor, amount: Tensor) -> Tensor:
    down, right = _pixel_centres(x)
    return _sample_at(x, down + amount * right, right)


def translate_x(x: Tensor, amount: Tensor) -> Tensor:
    """Shifts to the right, by `amount` in pixels."""
    down, right = _pixel_centres(x)
    return _sample_at(x, down, right - amount)


def translate_y(x: Tensor, amount: Tensor) -> Tensor:
    """Shifts down, by `amount` in pixels."""
    down, right = _pixel_centres(x)
    return _sample_at(x, down - amount, right)


def rotate(x: Tensor, amount: Tensor, interpolation: Interpolation = "bilinear") -> Tensor:
    """Rotates about the centre, counter-clockwise by `amount` in degrees."""
    angle = amount.double() * (math.pi / 180)
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    down, right = _pixel_centres(x)
    middle, centre = x.shape[2] / 2, x.shape[3] / 2
    down, right = down - middle, right - centre
    turned = middle + cos * down + sin * right, centre + cos * right - sin * down
    return _sample_at(x, *turned, interpolation)


def _pixel_centres(x: Tensor) -> tuple[Tensor, Tensor]:
    """The row and column coordinates of pixel centres: (1, 1, H, 1) and (1, 1, 1, W)."""
    down, right = (torch.arange(length, dtype=x.dtype, device=x.device) + 0.5 for length in x.shape[2:])
    return down[None, None, :, None], right[None, None, None, :]


def _sample_at(x: Tensor, down: Tensor, right: Tensor, interpolation: Interpolation = "bilinear") -> Tensor:
    """Takes each pixel from the coordinates given for it, which are broadcast to (N, 1, H, W)."""
    n, _, height, width = x.shape
    scaled = [
        (2 * coordinate / length - 1).expand(n, 1, height, width)
        for coordinate, length in ((right, width), (down, height))
    ]
    grid = torch.cat(scaled, 1).permute(0, 2, 3, 1)
    return F.grid_sample(x, grid, mode=interpolation, align_corners=False)
