"""Shared by audits of a model: its logits and input gradients for a few images."""

from __future__ import annotations

from torch import Tensor, nn

from stresslens.core.attack_base import BatchedModel, PerImage, batched_mean_logits, gradient

FEW = 128
"""Most images that an audit of a model checks."""
PIECE = 32


def few(images: tuple[Tensor, Tensor], n: int = FEW) -> tuple[Tensor, Tensor]:
    return images[0][:n], images[1][:n]


def logits_of(model: nn.Module, x: Tensor) -> Tensor:
    """(N, K) logits in pieces, without a graph."""
    return batched_mean_logits(BatchedModel(model, batch=PIECE), x).float()


def input_gradients(model: nn.Module, x: Tensor, loss: PerImage, y: Tensor) -> Tensor:
    """(N, C, H, W) the gradient of each image's loss at the image; zero if the model passes none
    back."""
    return gradient(BatchedModel(model, batch=PIECE), x, loss, y)[2]
