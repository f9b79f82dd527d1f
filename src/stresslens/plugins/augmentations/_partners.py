"""What augmentations that mix images share: with whom, how much, and the labels as probabilities."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from stresslens.core.draws import Draws


def beta(draws: Draws, alpha: float, like: Tensor) -> Tensor:
    """(N,) shares from Beta(alpha, alpha), an image's its own draw."""
    from scipy.special import betaincinv

    return torch.from_numpy(betaincinv(alpha, alpha, draws.uniform().double().cpu().numpy())).to(like)


def partners(draws: Draws) -> Tensor:
    """(N,) each image's partner: the next one in the order of a draw, so everyone lends to one other."""
    order = draws.uniform().argsort()
    partner = torch.empty_like(order)
    partner[order] = order.roll(-1)
    return partner


def blended(y: Tensor, partner: Tensor, share: Tensor, classes: int) -> Tensor:
    """(N, K) labels y (N,) or (N, K), each with `share` (N,) of its own and the rest its partner's."""
    target = F.one_hot(y, classes).to(share.dtype) if y.ndim == 1 else y
    return torch.lerp(target[partner], target, share[:, None])
