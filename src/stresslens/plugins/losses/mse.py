from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from stresslens.plugins.losses._targets import probabilities


def mse(logits: Tensor, y: Tensor) -> Tensor:
    """Mean squared error of the logits against one-hot labels, over images and classes.

    logits (N, K); y (N,) labels or (N, K).
    """
    return F.mse_loss(logits, probabilities(logits, y))
