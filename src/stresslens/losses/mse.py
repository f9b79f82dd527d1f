from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def mse(logits: Tensor, y: Tensor) -> Tensor:
    """Squared difference from the one-hot label, mean over images and classes. logits (N, K); y (N,) labels or (N, K)."""
    target = torch.zeros_like(logits).scatter_(1, y[:, None], 1.0) if y.ndim == 1 else y
    return F.mse_loss(logits, target)
