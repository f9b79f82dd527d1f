from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from stresslens.core.draws import Draws
from stresslens.core.types import Chance, Count, Positive
from stresslens.plugins.augmentations._chance import chosen, replaced, rows
from stresslens.plugins.augmentations._operations import apply, known_operations

KNOWN = known_operations(shift=lambda strength, length: strength * length / 3, bits=(4, 0))
NAMES = [
    name
    for name in KNOWN
    if name not in ("identity", "brightness", "contrast", "sharpness", "colour", "invert")
]
"""Without those that are corruptions in CIFAR-10-C and ImageNet-C, as in the paper."""
DEEPEST = 3


def augmix(
    x: Tensor,
    y: Tensor,
    draws: Draws,
    *,
    severity: Annotated[float, Field(ge=0.1, le=10)] = 3.0,
    width: Count = 3,
    depth: Annotated[int, Field(ge=1, le=10)] | None = None,
    alpha: Positive = 1.0,
    chance: Chance = 1.0,
) -> tuple[Tensor, Tensor]:
    """AugMix: blends an image with a mixture of `width` chains of operations (Hendrycks et al. 2020).

    A chain has `depth` operations, or one to three, drawn for each chain; each of a strength drawn
    between 0.1 and `severity` of 10. Strength 10 is a shear of 0.3, a translation by a third of the
    side, 30°, no bits or inversion of every value; autocontrast and equalize have none. Chains are
    weighted by Dirichlet(alpha), and the mixture by Beta(alpha, alpha). Moved images are
    interpolated bilinearly. The paper's consistency loss is not part of it. An image is changed
    with probability `chance`.
    """
    at = rows(chosen(draws, chance))
    shares = _gammas(draws, alpha, width).to(x)[at]
    shares = shares / shares.sum(1, keepdim=True)
    mixture = _gammas(draws, alpha, 2).to(x)[at]
    share = (mixture[:, 0] / mixture.sum(1))[:, None, None, None]
    images = x[at]
    mixed = torch.zeros_like(images)
    for k in range(width):
        mixed += shares[:, k, None, None, None] * _chain(images, draws, at, severity, depth)
    blended = torch.lerp(images, mixed, share).clamp(0, 1)
    return replaced(x, at, blended), y


def _chain(x: Tensor, draws: Draws, at: Tensor, severity: float, depth: int | None) -> Tensor:
    """Images x after a chain of operations; `at` are their positions in the batch of the draws."""
    length = draws.integers(DEEPEST) + 1 if depth is None else None
    for step in range(depth or DEEPEST):
        which = draws.integers(len(NAMES))
        strength = draws.uniform(low=0.1, high=severity).double() / 10
        sign = 2 * draws.integers(2) - 1
        if length is not None:
            which = which.where(step < length, -1)
        x = apply(x, which[at], strength[at], sign[at], NAMES, KNOWN)
    return x


def _gammas(draws: Draws, alpha: float, count: int) -> Tensor:
    """(N, count) numbers from Gamma(alpha), whose shares of their sum are Dirichlet(alpha)."""
    from scipy.special import gammaincinv

    quantiles = gammaincinv(alpha, draws.uniform(count).double().cpu().numpy())
    return torch.from_numpy(quantiles).clamp_min(torch.finfo(torch.float32).tiny)
