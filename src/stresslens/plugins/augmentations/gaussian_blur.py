from __future__ import annotations

from functools import partial
from typing import Annotated

import torch
from pydantic import AfterValidator, Field
from torch import Tensor

from stresslens.core.draws import Draws
from stresslens.core.types import Chance
from stresslens.plugins.augmentations._chance import changed, chosen
from stresslens.plugins.augmentations._ranges import PositiveRange


def _odd(size: int) -> int:
    if size % 2 == 0:
        raise ValueError("expected an odd number of pixels")
    return size


def gaussian_blur(
    x: Tensor,
    y: Tensor,
    draws: Draws,
    *,
    kernel_size: Annotated[int, Field(ge=1, le=999), AfterValidator(_odd)] | None = None,
    sigma: PositiveRange = (0.1, 2.0),
    chance: Chance = 1.0,
) -> tuple[Tensor, Tensor]:
    """Blurs each image by a Gaussian, whose standard deviation in pixels is drawn from `sigma`.

    The kernel has `kernel_size` by `kernel_size` pixels, an odd number; by default about a tenth of
    the shorter side, and at least three (Chen et al. 2020). The image is mirrored beyond its edge.
    An image is blurred with probability `chance`.
    """
    side = kernel_size or max(3, round(0.05 * min(x.shape[2:])) * 2 + 1)
    mask = chosen(draws, chance)
    deviation = draws.uniform(low=sigma[0], high=sigma[1])[:, None].to(x.dtype)
    return changed(x, mask, partial(_blurred, side=side), deviation), y


def _blurred(x: Tensor, deviation: Tensor, side: int) -> Tensor:
    """Images x (N, C, H, W) blurred by a kernel of `side` pixels; `deviation` is (N, 1)."""
    offset = torch.arange(side, device=x.device, dtype=x.dtype) - side // 2
    kernel = (-(offset**2) / (2 * deviation**2)).softmax(1)[:, :, None, None, None]  # (N, side, 1, 1, 1)
    for dim in (2, 3):
        padded = x.index_select(dim, _mirrored(x.shape[dim], side // 2, x.device))
        parts = (padded.narrow(dim, k, x.shape[dim]) * kernel[:, k] for k in range(side))
        x = sum(parts, torch.zeros((), dtype=x.dtype, device=x.device))
    return x.clamp(0, 1)


def _mirrored(length: int, margin: int, device: torch.device) -> Tensor:
    """The positions -margin … length + margin - 1, mirrored into 0 … length - 1 at the end pixels."""
    position = torch.arange(-margin, length + margin, device=device)
    period = max(1, 2 * (length - 1))
    folded = position % period
    return folded.minimum(period - folded) if length > 1 else torch.zeros_like(position)
