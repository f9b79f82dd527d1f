from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def mse(logits: Tensor, y: Tensor) -> Tensor:
    """Mean squared error of the logits against one-hot labels, over images and classes.

    logits (N, K); y (N,) labels or (N, K).
    """
    target = (
        (torch.arange(logits.shape[1], device=y.device) == y[:, None]).to(logits.dtype) if y.ndim == 1 else y
    )
    return F.mse_loss(logits, target)
