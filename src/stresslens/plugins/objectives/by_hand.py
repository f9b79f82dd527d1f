from __future__ import annotations

from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor, nn

from stresslens.core.errors import ConfigError
from stresslens.core.inspection import is_plain


def by_hand(
    net: nn.Module, inputs: Tensor, y: Tensor, *, loss: Literal["mse", "cross_entropy"] = "mse"
) -> Tensor:
    """The loss of a linear model or an MLP with explicit gradients: no autograd, no module calls.

    All arrays are class-major, (features, N). With logits z and one-hot labels t, the gradient of
    the mean squared error over images and classes is 2(z - t)/(NK), and that of the mean
    cross-entropy is (softmax(z) - t)/N. Each layer passes Wᵀg back where its ReLU was active; its
    weight gets g·aᵀ, its bias the sum of g. Returns the loss without a graph, which tells the
    training loop that the gradients are already computed.

    Raises ConfigError for mixed labels, and for any net except Flatten, Linear, ReLU, Linear, …,
    Linear.
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
        for k in range(len(layers) - 1, -1, -1):
            weight, bias = layers[k]
            a = activations[k]
            _add(weight, g.mm(a.t()))
            _add(bias, g.sum(1))
            if k:
                g = torch.ops.aten.threshold_backward(weight.t().mm(g), a, 0)  # the backward pass of ReLU
    return value


@lru_cache(maxsize=1)
def _affine(net: nn.Module) -> list[tuple[Tensor, Tensor]]:
    """Weight and bias of each linear layer; looked up once for each net."""
    layers = [layer for layer in net.children() if type(layer) is not nn.Flatten]
    kinds = [type(layer) for layer in layers]
    alternating = len(kinds) % 2 == 1 and kinds == [(nn.Linear, nn.ReLU)[k % 2] for k in range(len(kinds))]
    plain = type(net) is nn.Sequential and all(is_plain(module) for module in net.modules())
    if not plain or not alternating or any(layer.bias is None for layer in layers[::2]):
        raise ConfigError(
            "objective by_hand differentiates linear models and MLPs only, of plain layers without hooks; "
            "use `objective: supervised`"
        )
    affine: list[tuple[Tensor, Tensor]] = [(layer.weight, layer.bias) for layer in layers[::2]]  # type: ignore[misc]
    _check_logits(net, affine)
    return affine


def _check_logits(net: nn.Module, layers: list[tuple[Tensor, Tensor]]) -> None:
    """Raises ConfigError if the net gives other logits than these layers with ReLU in between."""
    (first, _), (last_weight, last_bias) = layers[0], layers[-1]
    with torch.no_grad():
        inputs = torch.arange(4 * first.shape[1], device=first.device).cos().view(4, -1).to(first.dtype)
        a = inputs
        for weight, bias in layers[:-1]:
            a = torch.addmm(bias, a, weight.t()).relu()
        logits, found = torch.addmm(last_bias, a, last_weight.t()), net(inputs)
    if found.shape != logits.shape or not torch.allclose(found, logits, rtol=1e-3, atol=1e-4):
        raise ConfigError(
            "objective by_hand: the net gives other logits than its layers; use `objective: supervised`"
        )


def _add(parameter: Tensor, gradient: Tensor) -> None:
    gradient = gradient.to(parameter.dtype)  # autocast computes it in 16 bits
    parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
