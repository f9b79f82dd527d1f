"""The logits and losses of several nets of one architecture, whose parameters are stacked, in one pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from stresslens.config import registry
from stresslens.core.inspection import is_plain
from stresslens.core.types import Loss

ELEMENTWISE = (
    nn.ReLU,
    nn.LeakyReLU,
    nn.ELU,
    nn.SELU,
    nn.GELU,
    nn.SiLU,
    nn.Tanh,
    nn.Sigmoid,
    nn.Softplus,
    nn.Hardtanh,
    nn.Identity,
)
"""Layers that treat each value by itself, so that they take the values of all nets at once."""


def without_stacked_form(net: nn.Module) -> str:
    """The layers of a net that cannot be computed for several nets at once, in words; empty if all can.

    Linear layers become batched matrix products. Convolutions have no such form: grouped ones, which
    compute several nets at once, took about twice as long on a CPU as one net after the other.
    """
    found = dict.fromkeys(
        type(layer).__name__
        for _, layer in _layers(net)
        if not isinstance(layer, (*ELEMENTWISE, *_WITH_FORM))
    )
    if not found and not all(is_plain(module) for module in net.modules()):
        return "a module with hooks"
    return ", ".join(found)


def _layers(net: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The layers of a net in their order, with their names; a module that is no Sequential is one layer."""
    if type(net) is not nn.Sequential:
        yield prefix, net
        return
    for name, module in net.named_children():
        yield from _layers(module, f"{prefix}.{name}" if prefix else name)


def stacked_logits(net: nn.Module, parameters: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """(R, N, K) logits of R nets of the architecture of `net`, for inputs x (R, N, ...). `parameters`
    are those of all nets by their names in `net`, (R, ...) each."""
    for name, layer in _layers(net):
        if isinstance(layer, nn.Flatten):
            x = x.flatten(2)
        elif isinstance(layer, nn.Linear):
            weight = parameters[f"{name}.weight" if name else "weight"].transpose(1, 2)
            bias = parameters.get(f"{name}.bias" if name else "bias")
            x = x @ weight if bias is None else torch.baddbmm(bias[:, None], x, weight)
        else:
            x = layer(x)
    return x


_WITH_FORM = (nn.Flatten, nn.Linear)


def stacked_loss(loss: Loss) -> Callable[[Tensor, Tensor], Tensor]:
    """(R,) the losses of R nets, as a function of their logits (R, N, K) and labels (R, N) or (R, N, K).

    A loss with a function `of_each_image` beside it is computed for all nets at once, others for one
    net after the other.
    """
    of_each_image = loss.answer_beside("of_each_image") if isinstance(loss, registry.Bound) else None
    return partial(_one_by_one, loss) if of_each_image is None else partial(_at_once, of_each_image)


def _one_by_one(loss: Any, logits: Tensor, y: Tensor) -> Tensor:
    return torch.stack([loss(logits=of_net, y=labels) for of_net, labels in zip(logits, y)])


def _at_once(of_each_image: Callable[[Tensor, Tensor], Tensor], logits: Tensor, y: Tensor) -> Tensor:
    return of_each_image(logits.flatten(0, 1), y.flatten(0, 1)).view(len(logits), -1).mean(1)
