from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stresslens.core.answers import predicted
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
"""Monotone layers: they map bounds of the input to bounds of the output."""


def interval(
    model: nn.Module, x: Tensor, y: Tensor, *, norm: Literal["linf"] = "linf", halvings: Count = 20
) -> Tensor:
    """Interval bound propagation (IBP): the largest certified linf radius of each image.

    At this radius, interval bounds still prove the class y (Gowal et al. 2018). Bounds on every
    layer's outputs follow from those on its inputs, in float64. The last linear layer is combined
    with the differences of logits. The bounds are exact for a model of one affine layer and get
    looser with every further layer; for a model that was not trained for them, the radius is small.
    It is found by `halvings` bisections of [0, 1], and is itself certified. x (N, C, H, W) in [0,
    1], y (N,) → (N,): NaN where no radius is certified, -inf where the prediction is not y. Raises
    ConfigError with the name of the first layer that is not supported.
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
    proven_at_zero = proven(low)
    for _ in range(halvings):
        middle = (low + high) / 2
        holds = proven(middle)
        low, high = torch.where(holds, middle, low), torch.where(holds, high, middle)
    with torch.no_grad():
        correct = predicted(model(x)) == y
    return torch.where(proven_at_zero, low, torch.where(correct, torch.nan, -torch.inf)).cpu()


def _layers(model: nn.Module) -> Iterator[nn.Module]:
    if type(model) is nn.Sequential:
        for layer in model:
            yield from _layers(layer)
    elif isinstance(model, (*MONOTONE, Normalize, nn.Linear, nn.Conv2d, nn.BatchNorm1d, nn.BatchNorm2d)):
        yield copy.deepcopy(model).double().eval()
    else:
        raise ConfigError(
            f"interval bounds do not support the layer {type(model).__name__}; they support "
            "Sequential models of linear and convolutional layers, batch norm, ReLU and pooling"
        )


def _least_margin(layers: list[nn.Module], low: Tensor, high: Tensor, y: Tensor) -> Tensor:
    """(N,) a lower bound of the logit of y minus the highest other logit."""
    *body, last = layers
    for layer in body if isinstance(last, nn.Linear) else layers:
        low, high = _propagated(layer, low, high)
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


def _propagated(layer: nn.Module, low: Tensor, high: Tensor) -> Bounds:
    if isinstance(layer, MONOTONE):
        return layer(low), layer(high)
    centre, reach = (low + high) / 2, (high - low) / 2
    if isinstance(layer, nn.Linear):
        middle, spread = layer(centre), F.linear(reach, layer.weight.abs())
    elif isinstance(layer, nn.Conv2d):
        middle = layer(centre)
        spread = layer._conv_forward(reach, layer.weight.abs(), None)  # with the layer's padding
    else:  # an affine map of each entry
        middle = layer(centre)
        spread = (layer(centre + reach) - middle).abs()
    return middle - spread, middle + spread
