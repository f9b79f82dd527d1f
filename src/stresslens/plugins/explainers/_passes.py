from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

import torch
from torch import Tensor, nn

from stresslens.core.attack_base import BatchedModel, gradient
from stresslens.core.errors import ConfigError

Of = Literal["logit", "probability", "log_probability"]
"""The model's answer that is explained: of one class its logit, its probability, or the logarithm of that."""

VALUES = 2**23
"""Numbers that a batch of images holds at most."""
MOST = 256


def score(logits: Tensor, y: Tensor, of: Of) -> Tensor:
    """(n,) of logits (n, K) and classes y (n,)."""
    if of == "logit":
        return logits.gather(1, y[:, None])[:, 0]
    log = logits.log_softmax(1).gather(1, y[:, None])[:, 0]
    return log if of == "log_probability" else log.exp()


def rows(x: Tensor) -> int:
    """How many images like these go through the model at once."""
    return max(1, min(MOST, VALUES // x[0].numel()))


def pieces(x: Tensor, *others: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """The images, and what else there is of each, as many as go through the model at once."""
    return zip(*(torch.split(each, rows(x)) for each in (x, *others)))


def scores(
    model: nn.Module, count: int, images: Callable[[Tensor], Tensor], y: Tensor, of: Of, at_once: int
) -> Tensor:
    """(count,) scores of that many images, `at_once` at a time: `images` gives those at some
    places, y (count,) their classes."""
    with torch.no_grad():
        parts = torch.split(torch.arange(count, device=y.device), at_once)
        return torch.cat([score(model(images(places)), y[places], of).float() for places in parts])


def slopes(model: nn.Module, x: Tensor, y: Tensor, of: Of) -> Tensor:
    """(n, C, H, W) the gradient of each image's own score at that image. Raises ConfigError where
    the model passes none on."""
    grad = gradient(BatchedModel(model, batch=rows(x)), x, lambda logits, own: score(logits, own, of), y)[2]
    if not grad.any():
        with torch.enable_grad():
            if not model(x[:1].detach().requires_grad_()).requires_grad:
                raise ConfigError("the model passes no gradient on to its input; occlusion needs none")
    return grad
