from __future__ import annotations

import torch
from torch import Tensor

from stresslens.core.draws import Draws
from stresslens.core.types import Positive
from stresslens.plugins.augmentations._partners import beta, blended, partners


def mixup(
    x: Tensor, y: Tensor, draws: Draws, classes: int, *, alpha: Positive = 0.2
) -> tuple[Tensor, Tensor]:
    """Blends each image, and its label, with another of the batch by a share from Beta(alpha,
    alpha) (Zhang et al. 2018).

    Returns labels (N, K) as probabilities. An image's share is its own draw; its partner is the
    next image in the order of a second draw, so, unlike other augmentations, the result depends on
    which images are batched together.
    """
    share, partner = beta(draws, alpha, x), partners(draws)
    return torch.lerp(x[partner], x, share[:, None, None, None]), blended(y, partner, share, classes)
