from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from stresslens.core.draws import Draws
from stresslens.core.types import Chance, Count, Positive
from stresslens.plugins.augmentations._chance import changed, chosen
from stresslens.plugins.augmentations._operations import applied, known_operations
from stresslens.plugins.augmentations._partners import beta

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
    mask = chosen(draws, chance)
    shares = _gammas(draws, alpha, width).to(x)
    shares = shares / shares.sum(1, keepdim=True)
    share = beta(draws, alpha, x)
    chains = [_chain(draws, severity, depth) for _ in range(width)]
    which, strength, signs = (torch.stack(values, 1) for values in zip(*chains))  # (N, width, steps)
    return changed(x, mask, _blended, shares, share, which, strength, signs), y


def _blended(
    x: Tensor, shares: Tensor, share: Tensor, which: Tensor, strength: Tensor, signs: Tensor
) -> Tensor:
    """Images x blended with their mixtures of chains."""
    mixed = torch.zeros_like(x)
    for k in range(shares.shape[1]):
        chain = applied(x, which[:, k], strength[:, k], signs[:, k], NAMES, KNOWN)
        mixed += shares[:, k, None, None, None] * chain
    return torch.lerp(x, mixed, share[:, None, None, None]).clamp(0, 1)


def _chain(draws: Draws, severity: float, depth: int | None) -> tuple[Tensor, Tensor, Tensor]:
    """A chain of operations for each image: which, how strong and which way, each (N, steps); -1 is
    none."""
    steps = []
    length = draws.integers(DEEPEST) + 1 if depth is None else None
    for step in range(depth or DEEPEST):
        which = draws.integers(len(NAMES))
        strength = draws.uniform(low=0.1, high=severity).double() / 10
        sign = 2 * draws.integers(2) - 1
        if length is not None:
            which = which.where(step < length, -1)
        steps.append((which, strength, sign))
    which, strength, sign = (torch.stack(values, 1) for values in zip(*steps))
    return which, strength, sign


def _gammas(draws: Draws, alpha: float, count: int) -> Tensor:
    """(N, count) numbers from Gamma(alpha), whose shares of their sum are Dirichlet(alpha)."""
    from scipy.special import gammaincinv

    quantiles = gammaincinv(alpha, draws.uniform(count).double().cpu().numpy())
    return torch.from_numpy(quantiles).clamp_min(torch.finfo(torch.float32).tiny)
