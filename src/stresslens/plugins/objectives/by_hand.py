from __future__ import annotations

from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor, nn

from stresslens.core.errors import ConfigError


def by_hand(
    net: nn.Module, inputs: Tensor, y: Tensor, *, loss: Literal["mse", "cross_entropy"] = "mse"
) -> Tensor:
    """The loss of a linear model or an MLP with its gradient written out: no autograd, and no
    module is called.

    Everything is class-major, (features, N). With logits z and one-hot labels t, the gradient of
    the mean squared error over images and classes is 2(z - t)/(NK), of the mean cross-entropy
    (softmax(z) - t)/N; each layer passes Wᵀg to the one below where its ReLU was open, and takes
    g·aᵀ for its weight and the sum of g for its bias. Returns the loss without a graph, which tells
    the loop that the gradients are in place.

    Raises ConfigError for any other net than Linear, ReLU, Linear, …, Linear behind a Flatten, and
    for mixed labels.
    """
    if y.ndim != 1:
        raise ConfigError(
            "objective by_hand takes one label an image; leave mixup out, or use `objective: supervised`"
        )
    layers = _affine(net)
    label = y.unsqueeze(0)
    with torch.no_grad():
        a = inputs.flatten(1).t()
        activations = [a]
        for weight, bias in layers[:-1]:
            a = torch.addmm(bias.unsqueeze(1), weight, a).relu_()
            activations.append(a)
        weight, bias = layers[-1]
        z = torch.addmm(bias.unsqueeze(1), weight, a)  # (K, N)
        if loss == "mse":
            g = z.scatter_(0, label, -1.0, reduce="add")
            value: Tensor = g.square().mean()
            g.mul_(2 / g.numel())
        else:
            log_p = torch.log_softmax(z, 0)
            value = log_p.gather(0, label).mean().neg_()
            g = log_p.exp_().scatter_(0, label, -1.0, reduce="add").div_(len(y))
        for place in range(len(layers) - 1, -1, -1):
            weight, bias = layers[place]
            a = activations[place]
            _add(weight, g.mm(a.t()))
            _add(bias, g.sum(1))
            if place:
                g = torch.ops.aten.threshold_backward(weight.t().mm(g), a, 0)  # relu's own backward
    return value


@lru_cache(maxsize=1)
def _affine(net: nn.Module) -> list[tuple[Tensor, Tensor]]:
    """Weight and bias of each linear layer, looked up once a net."""
    layers = [layer for layer in net.children() if not isinstance(layer, nn.Flatten)]
    kinds = [type(layer) for layer in layers]
    alternating = len(kinds) % 2 == 1 and kinds == [
        (nn.Linear, nn.ReLU)[place % 2] for place in range(len(kinds))
    ]
    if type(net) is not nn.Sequential or not alternating or any(layer.bias is None for layer in layers[::2]):
        raise ConfigError(
            "objective by_hand differentiates linear models and MLPs only; use `objective: supervised`"
        )
    return [(layer.weight, layer.bias) for layer in layers[::2]]  # type: ignore[misc]


def _add(parameter: Tensor, gradient: Tensor) -> None:
    parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
