"""Cheap features and plain properties of pictures, without a network."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

SIDE = 8
"""Of the small picture, and of the blocks of the cosine transform, which are those of JPEG."""
LEVELS = 16
"""Bins of the histogram of grey levels."""
FAINT = 1e-6
"""Energy below that of a sixteenth of a grey level of 8 bits does not count."""


def picture_properties(x: Tensor) -> dict[str, Tensor]:
    """Properties (N,) of pictures x (N, C, H, W) in [0, 1].

    Brightness is the mean, contrast the standard deviation of the grey picture. Saturation, of colour
    pictures alone, is the mean of the largest minus the smallest channel. Sharpness is the standard
    deviation of the Laplacian of the grey picture (Pech-Pacheco et al. 2000 take its variance).
    """
    grey = x.mean(1, keepdim=True)
    kernel = torch.tensor([[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]], dtype=x.dtype)
    laplacian = F.conv2d(F.pad(grey, (1, 1, 1, 1), "replicate"), kernel[None, None])
    found = {
        "brightness": grey.mean((1, 2, 3)),
        "contrast": grey.std((1, 2, 3), correction=0),
        "sharpness": laplacian.std((1, 2, 3), correction=0),
    }
    if x.shape[1] == 3:
        low, high = x.aminmax(dim=1)
        found["saturation"] = (high - low).mean((1, 2))
    return found


def picture_features(x: Tensor) -> Tensor:
    """(N, D) features of pictures x (N, C, H, W) in [0, 1], the same D for the same shape.

    They are the picture scaled down to 8×8 pixels; mean, spread and ends of each channel; the
    histogram of grey levels; and the logarithm of the mean energy of each of the 64 cosine
    coefficients of its blocks of 8×8 pixels, which show blur, noise and JPEG compression.
    """
    grey = x.mean(1, keepdim=True)
    small = F.adaptive_avg_pool2d(x, (min(SIDE, x.shape[2]), min(SIDE, x.shape[3]))).flatten(1)
    flat = x.flatten(2)
    colours = [flat.mean(2), flat.std(2, correction=0), flat.amin(2), flat.amax(2)]
    level = (grey.flatten(1) * LEVELS).long().clamp(0, LEVELS - 1)
    pixels = grey.shape[2] * grey.shape[3]
    counts = torch.zeros(len(x), LEVELS, dtype=x.dtype).scatter_add_(
        1, level, torch.ones_like(level, dtype=x.dtype)
    )
    return torch.cat([small, *colours, (counts / pixels).sqrt(), _energies(grey)], 1)


def _energies(grey: Tensor) -> Tensor:
    """(N, 64) logarithms of the mean energies of the cosine coefficients; the border is repeated to
    fill the last blocks."""
    down, across = (-side % SIDE for side in grey.shape[2:])
    whole = F.pad(grey, (0, across, 0, down), "replicate")[:, 0]
    blocks = whole.unfold(1, SIDE, SIDE).unfold(2, SIDE, SIDE)  # (N, rows, columns, 8, 8)
    cosines = _cosines().to(grey.dtype)
    coefficients = cosines @ blocks @ cosines.T
    return (coefficients.square().mean((1, 2)) + FAINT).log().flatten(1)


def _cosines() -> Tensor:
    """(8, 8) the orthonormal cosine transform (DCT-II)."""
    k = torch.arange(SIDE)
    rows = torch.cos(math.pi * (2 * k[None] + 1) * k[:, None] / (2 * SIDE)) * math.sqrt(2 / SIDE)
    rows[0] /= math.sqrt(2)
    return rows
