from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from stresslens.core.types import Decay
from stresslens.plugins.losses._targets import probabilities


def bce(logits: Tensor, y: Tensor, *, smoothing: Decay = 0.0, threshold: Decay | None = None) -> Tensor:
    """Binary cross-entropy of every class, its sigmoid against "is it this class", over images and classes.

    See Wightman et al. (2021, section 3.1), where mixed images count as both their classes: with a
    `threshold` (there 0.2, behind mixup) every class of a larger share is fully present. logits (N, K);
    y (N,) labels or (N, K) shares; `smoothing` is label smoothing.
    """
    target = probabilities(logits, y, smoothing)
    if threshold is not None:
        target = (target > threshold).to(target.dtype)
    return F.binary_cross_entropy_with_logits(logits, target.to(logits.dtype))
