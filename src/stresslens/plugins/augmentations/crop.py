from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from stresslens.core.draws import Draws
from stresslens.core.types import Chance, Natural
from stresslens.plugins.augmentations._chance import chosen


def crop(
    x: Tensor, y: Tensor, draws: Draws, *, padding: Natural = 4, chance: Chance = 1.0
) -> tuple[Tensor, Tensor]:
    """Random crop: pads with `padding` black pixels, then crops a random part of the original
    size. An image is cropped with probability `chance`."""
    mask = chosen(draws, chance)
    n, _, height, width = x.shape
    shift = draws.integers(2 * padding + 1, 2).where(mask[:, None], padding)  # (N, 2)
    padded = F.pad(x, [padding] * 4)
    rows = shift[:, :1] + torch.arange(height, device=x.device)  # (N, H)
    columns = shift[:, 1:] + torch.arange(width, device=x.device)  # (N, W)
    images = torch.arange(n, device=x.device)[:, None, None]
    cropped = padded.permute(0, 2, 3, 1)[images, rows[:, :, None], columns[:, None, :]]  # (N, H, W, C)
    return cropped.permute(0, 3, 1, 2), y
