from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from stresslens.core.draws import Draws
from stresslens.core.types import Positive


def mixup(x: Tensor, y: Tensor, draws: Draws, classes: int, *, alpha: Positive = 0.2) -> tuple[Tensor, Tensor]:
    """Blends each image, and its label, with another of the batch by a share from Beta(alpha, alpha) (Zhang et al. 2018).

    Returns labels (N, K) as probabilities. An image's share is its own draw; its partner is the next image in the order of a
    second draw, so, unlike other augmentations, the result depends on which images are batched together.
    """
    from scipy.special import betaincinv

    share = torch.from_numpy(betaincinv(alpha, alpha, draws.uniform().double().cpu().numpy())).to(x)  # (N,)
    order = draws.uniform().argsort()
    partner = torch.empty_like(order)
    partner[order] = order.roll(-1)
    target = F.one_hot(y, classes).to(x.dtype) if y.ndim == 1 else y
    mixed = torch.lerp(x[partner], x, share[:, None, None, None])
    return mixed, torch.lerp(target[partner], target, share[:, None])
