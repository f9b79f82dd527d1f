"""Shared by augmentations that mix images (mixup, CutMix): partners, shares, mixed labels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from stresslens.core.draws import Draws


def beta(draws: Draws, alpha: float, like: Tensor) -> Tensor:
    """(N,) shares drawn from Beta(alpha, alpha), one for each image."""
    from scipy.special import betaincinv

    return torch.from_numpy(betaincinv(alpha, alpha, draws.uniform().double().cpu().numpy())).to(like)


def partners(draws: Draws) -> Tensor:
    """(N,) each image's partner: the next image in a random order, so each is the partner of one
    other."""
    order = draws.uniform().argsort()
    partner = torch.empty_like(order)
    partner[order] = order.roll(-1)
    return partner


def with_partners(x: Tensor, partner: Tensor, share: Tensor) -> Tensor:
    """Images x (N, C, H, W) mixed with those of their partners; `share` (N, 1, 1, 1) or (N, 1, H, W) is
    that of an image's own pixels."""
    return x.index_select(0, partner).lerp_(x, share)


def blended(y: Tensor, partner: Tensor, share: Tensor, classes: int) -> Tensor:
    """(N, K) mixed labels: `share` (N,) of each image's label y (N,) or (N, K), the rest its
    partner's."""
    target = F.one_hot(y, classes).to(share.dtype) if y.ndim == 1 else y
    return torch.lerp(target[partner], target, share[:, None])
