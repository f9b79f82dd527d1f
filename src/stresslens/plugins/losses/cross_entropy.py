from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch.nn.functional as F
from torch import Tensor

from stresslens.core.dtypes import at_least_float32
from stresslens.core.types import Decay

MANY = 256
"""From so many images on, the softmax runs class-major on the CPU: torch's kernel over a short last
axis takes ten times as long."""


def cross_entropy(logits: Tensor, y: Tensor, *, smoothing: Decay = 0.0) -> Tensor:
    """Mean cross-entropy. logits (N, K); y (N,) labels or (N, K) probabilities.

    `smoothing` (label smoothing) spreads this share over all classes. Equal to
    torch.nn.functional.cross_entropy up to rounding.
    """
    if len(logits) < MANY or logits.is_cuda:
        return F.cross_entropy(logits, y, label_smoothing=smoothing)
    log_p = F.log_softmax(at_least_float32(logits).t().contiguous(), 0)  # (K, N)
    of_label = -log_p.gather(0, y[None]).mean() if y.ndim == 1 else -(y.t() * log_p).sum(0).mean()
    return of_label if smoothing == 0 else of_label.lerp(-log_p.mean(), smoothing)


def of_each_image(*, smoothing: float) -> Callable[[Tensor, Tensor], Tensor]:
    """A function of logits (N, K) and y that returns the loss of each image (N,); `cross_entropy` is
    their mean. Runs that train together use it."""
    return partial(F.cross_entropy, label_smoothing=smoothing, reduction="none")


def has_softmax() -> bool:
    return True
