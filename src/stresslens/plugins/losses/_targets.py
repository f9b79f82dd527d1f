"""Shared by losses: labels as probabilities of the classes, and bases of powers."""

from __future__ import annotations

import torch
from torch import Tensor


def probabilities(logits: Tensor, y: Tensor, smoothing: float = 0.0) -> Tensor:
    """(N, K) the labels y, (N,) or (N, K), as probabilities, of which a share `smoothing` is spread over
    all classes (Szegedy et al. 2016, section 7)."""
    k = logits.shape[1]
    of_label = (torch.arange(k, device=y.device) == y[:, None]).to(logits.dtype) if y.ndim == 1 else y
    return of_label if smoothing == 0 else of_label * (1 - smoothing) + smoothing / k


def positive(values: Tensor) -> Tensor:
    """The values, at least the smallest positive number: the slope of 0**gamma is infinite for gamma < 1."""
    return values.clamp_min(torch.finfo(values.dtype).tiny)
