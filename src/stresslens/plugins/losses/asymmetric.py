from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from stresslens.core.dtypes import at_least_float32
from stresslens.core.types import Decay, NonNegative
from stresslens.plugins.losses._targets import positive, probabilities


def asymmetric(
    logits: Tensor,
    y: Tensor,
    *,
    gamma_positive: NonNegative = 0.0,
    gamma_negative: NonNegative = 4.0,
    margin: Decay = 0.05,
    smoothing: Decay = 0.0,
) -> Tensor:
    """Asymmetric loss: binary cross-entropy of every class, in which easy "not this class" hardly counts.

    See Ridnik et al. (2021, eq. 4 to 7). With p the sigmoid of a logit, the class of an image costs
    (1 - p)^gamma_positive · -log p, and every other class q^gamma_negative · -log(1 - q) with
    q = max(p - margin, 0). It is the sum over classes and the mean over images. logits (N, K); y (N,)
    labels or (N, K) shares; `smoothing` is label smoothing.
    """
    logits = at_least_float32(logits)
    target = probabilities(logits, y, smoothing)
    p = torch.sigmoid(logits)
    of_class = positive(1 - p) ** gamma_positive * -F.logsigmoid(logits)
    q = positive(p - margin)
    log_not_q = F.logsigmoid(-logits) if margin == 0 else torch.log1p(-q)
    of_others = q**gamma_negative * -log_not_q
    return (target * of_class + (1 - target) * of_others).sum(1).mean()
