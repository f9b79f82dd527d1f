from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from stresslens.core.dtypes import at_least_float32
from stresslens.core.types import Decay, NonNegative
from stresslens.plugins.losses._targets import positive, probabilities


def focal(logits: Tensor, y: Tensor, *, gamma: NonNegative = 2.0, smoothing: Decay = 0.0) -> Tensor:
    """Focal loss: cross-entropy times (1 - p)^gamma, so that easy images weigh less.

    See Lin et al. (2017, eq. 4), here with the softmax of several classes; gamma 0 is cross-entropy.
    Their α, a weight of each class, is `train.balance: weights`. logits (N, K); y (N,) labels or (N, K)
    probabilities; `smoothing` is label smoothing.
    """
    log_p = F.log_softmax(at_least_float32(logits), 1)
    weight = positive(-log_p.expm1()) ** gamma
    return -(probabilities(logits, y, smoothing) * weight * log_p).sum(1).mean()


def has_softmax() -> bool:
    return True
