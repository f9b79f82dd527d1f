"""What the audits of a model share: its answers for a few images, as it would give them to anyone."""

from __future__ import annotations

from torch import Tensor, nn

from stresslens.core.attack_base import BatchedModel, PerImage, batched_mean_logits, gradient

FEW = 128
"""Images that an audit of a model looks at."""
PIECE = 32


def few(images: tuple[Tensor, Tensor], n: int = FEW) -> tuple[Tensor, Tensor]:
    return images[0][:n], images[1][:n]


def answers(model: nn.Module, x: Tensor) -> Tensor:
    """(N, K) logits in pieces, without a graph."""
    return batched_mean_logits(BatchedModel(model, batch=PIECE), x).float()


def slopes(model: nn.Module, x: Tensor, loss: PerImage, y: Tensor) -> Tensor:
    """(N, C, H, W) the gradient of each image's loss at the image, zero where the model passes none on."""
    return gradient(BatchedModel(model, batch=PIECE), x, loss, y)[2]
