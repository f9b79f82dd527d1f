from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stresslens.core.errors import ConfigError
from stresslens.core.layers import Normalize
from stresslens.core.types import Count

Bounds = tuple[Tensor, Tensor]
MONOTONE = (
    nn.ReLU,
    nn.MaxPool2d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool2d,
    nn.Flatten,
    nn.Identity,
    nn.Dropout,
    nn.Dropout2d,
)
"""Layers that pass a higher input on as a higher output: bounds go through them as they are."""


def interval(
    model: nn.Module, x: Tensor, y: Tensor, *, norm: Literal["linf"] = "linf", halvings: Count = 20
) -> Tensor:
    """The largest linf radius at which interval bounds still prove the answer y, for each image
    (Gowal et al. 2018).

    Bounds on every layer's outputs follow from those on its inputs, in float64; the last linear
    layer is taken together with the differences of logits. Exact for a model of one affine layer,
    looser with every other; without training for it, small. The radius is found by `halvings` of
    [0, 1], and is proven itself. x (N, C, H, W) in [0, 1], y (N,) → (N,); NaN where the answer is
    not proven at any, -inf where it is not y. Raises ConfigError naming the first layer that is not
    known.
    """
    layers = list(_layers(model))
    images = x.double()

    def proven(radius: Tensor) -> Tensor:
        around = radius.reshape(-1, 1, 1, 1)
        low, high = (images - around).clamp_min(0), (images + around).clamp_max(1)
        with torch.no_grad():
            return _least_margin(layers, low, high, y) > 0

    low, high = (
        torch.zeros(len(x), dtype=torch.float64, device=x.device),
        torch.ones(len(x), dtype=torch.float64, device=x.device),
    )
    right = proven(low)
    for _ in range(halvings):
        middle = (low + high) / 2
        holds = proven(middle)
        low, high = torch.where(holds, middle, low), torch.where(holds, high, middle)
    with torch.no_grad():
        answered = model(x).argmax(1) == y
    return torch.where(right, low, torch.where(answered, torch.nan, -torch.inf)).cpu()


def _layers(model: nn.Module) -> Iterator[nn.Module]:
    if type(model) is nn.Sequential:
        for layer in model:
            yield from _layers(layer)
    elif isinstance(model, (*MONOTONE, Normalize, nn.Linear, nn.Conv2d, nn.BatchNorm1d, nn.BatchNorm2d)):
        yield copy.deepcopy(model).double().eval()
    else:
        raise ConfigError(
            f"interval bounds do not know the layer {type(model).__name__}; they take Sequential models of linear and "
            "convolutional layers, batch norm, ReLU and pooling"
        )


def _least_margin(layers: list[nn.Module], low: Tensor, high: Tensor, y: Tensor) -> Tensor:
    """(N,) a bound from below on how far the logit of y lies above every other."""
    *body, last = layers
    for layer in body if isinstance(last, nn.Linear) else layers:
        low, high = _through(layer, low, high)
    if not isinstance(last, nn.Linear):
        margins = low.gather(1, y[:, None]) - high
    else:
        weight = last.weight[y][:, None] - last.weight  # (N, K, D)
        bias = 0.0 if last.bias is None else last.bias[y][:, None] - last.bias
        centre, reach = (low + high) / 2, (high - low) / 2
        margins = (
            (weight @ centre[..., None]).squeeze(2) + bias - (weight.abs() @ reach[..., None]).squeeze(2)
        )
    return margins.scatter(1, y[:, None], torch.inf).amin(1)


def _through(layer: nn.Module, low: Tensor, high: Tensor) -> Bounds:
    if isinstance(layer, MONOTONE):
        return layer(low), layer(high)
    centre, reach = (low + high) / 2, (high - low) / 2
    if isinstance(layer, nn.Linear):
        middle, spread = layer(centre), F.linear(reach, layer.weight.abs())
    elif isinstance(layer, nn.Conv2d):
        middle, spread = (
            layer(centre),
            layer._conv_forward(reach, layer.weight.abs(), None),
        )  # its own padding
    else:  # an affine map of each entry by itself: its slope is what a step of 1 changes
        middle = layer(centre)
        spread = (layer(centre + reach) - middle).abs()
    return middle - spread, middle + spread
