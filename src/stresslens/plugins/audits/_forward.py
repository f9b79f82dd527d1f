"""Shared by audits of a model: its logits and input gradients for a few images, and copies of it in
a higher precision."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor, nn

from stresslens.core.attack_base import (
    BatchedModel,
    PerImage,
    apart,
    attacked,
    batched_mean_logits,
    gradient,
)
from stresslens.core.dtypes import float_dtypes, in_dtype

FEW = 128
"""Most images that an audit of a model checks."""
PIECE = 32
COARSE = "the model's precision does not resolve small changes, and it cannot be computed in float32"
ROUNDINGS = 64
"""Logits of the same function may differ by so many roundings of their dtype: the errors of some
tens of layers add up."""


def few(images: tuple[Tensor, Tensor], n: int = FEW) -> tuple[Tensor, Tensor]:
    return images[0][:n], images[1][:n]


def logits_of(model: nn.Module, x: Tensor) -> Tensor:
    """(N, K) logits in pieces, without a graph, in the images' dtype."""
    return batched_mean_logits(BatchedModel(model, batch=PIECE), x)


def input_gradients(model: nn.Module, x: Tensor, loss: PerImage, y: Tensor) -> Tensor:
    """(N, C, H, W) the gradient of each image's loss at the image; zero if the model passes none
    back."""
    return gradient(BatchedModel(model, batch=PIECE), x, loss, y)[2]


def rounding(model: nn.Module) -> float:
    """The relative rounding error of the coarsest of the model's dtypes: 1.2e-7 for float32, 9.8e-4
    for float16."""
    return max(torch.finfo(dtype).eps for dtype in float_dtypes(model) or [torch.float32])


def recomputed(model: nn.Module, x: Tensor, dtype: torch.dtype, most: float) -> nn.Module | None:
    """A copy of the model that computes in `dtype`. None if it cannot be copied or computed so, or
    if its logits of most images x (N, C, H, W) differ by `most` of their range. (Of single images they
    may: where the model jumps, rounding may jump too.)"""
    try:
        copied = in_dtype(deepcopy(model), dtype)
        with attacked(model), attacked(copied):
            far = apart(logits_of(copied, x), logits_of(model, x))
    except Exception:  # a user's module may hold anything, and cast to a precision of its own
        return None
    return copied if float(far.median()) < most else None


def resolving(model: nn.Module, x: Tensor) -> nn.Module | None:
    """The model, or a copy of it in float32 if its own precision is lower. Only then do small
    changes of the image show in the logits. None if there is no such copy."""
    if rounding(model) <= torch.finfo(torch.float32).eps:
        return model
    return recomputed(model, x, torch.float32, min(ROUNDINGS * rounding(model), 0.5))
