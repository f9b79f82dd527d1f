"""Shared by explainers: the explained score, and its values and gradients in batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

import torch
from torch import Tensor, nn

from stresslens.core.attack_base import BatchedModel, gradient
from stresslens.core.errors import ConfigError
from stresslens.core.pass_memory import images_at_once
from stresslens.core.pieces import in_pieces

Of = Literal["logit", "probability", "log_probability"]
"""The score of a class that is explained: its logit, its probability, or the probability's
logarithm."""

VALUES = 2**23
"""Most pixel values in a batch of images."""
MOST = 256


def score(logits: Tensor, y: Tensor, of: Of) -> Tensor:
    """(n,) the scores of classes y (n,), from logits (n, K)."""
    if of == "logit":
        return logits.gather(1, y[:, None])[:, 0]
    log = logits.log_softmax(1).gather(1, y[:, None])[:, 0]
    return log if of == "log_probability" else log.exp()


def rows(model: nn.Module, x: Tensor, *, gradient: bool = False, most: int = MOST) -> int:
    """The number of images like x (n, C, H, W) that pass through the model at once."""
    most = max(1, min(most, VALUES // x[0].numel()))
    return images_at_once(model, x.shape[1:], most, gradient=gradient)


def pieces(model: nn.Module, x: Tensor, *others: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Splits images, and other tensors with one row for each image, into batches whose gradients are
    computed at once."""
    size = rows(model, x, gradient=True)
    return zip(*(torch.split(values, size) for values in (x, *others)))


def scores(logits: Callable[[Tensor], Tensor], y: Tensor, of: Of, at_once: int) -> Tensor:
    """(n,) scores of n images of classes y (n,), computed `at_once` at a time.

    `logits` returns those of the images at given positions.
    """
    every = torch.arange(len(y), device=y.device)

    def of_rows(rows: slice) -> Tensor:
        return score(logits(every[rows]), y[rows], of).float()

    with torch.no_grad():
        return torch.cat(in_pieces(of_rows, len(y), at_once))


def slopes(model: nn.Module, x: Tensor, y: Tensor, of: Of) -> Tensor:
    """(n, C, H, W) the gradient of each image's score at the image.

    Raises ConfigError if the model passes no gradient back to its input.
    """
    batched = BatchedModel(model, batch=rows(model, x, gradient=True))
    grad = gradient(batched, x, lambda logits, classes: score(logits, classes, of), y)[2]
    if not grad.any():
        with torch.enable_grad():
            if not model(x[:1].detach().requires_grad_()).requires_grad:
                raise ConfigError("the model passes no gradient back to its input; occlusion needs none")
    return grad
