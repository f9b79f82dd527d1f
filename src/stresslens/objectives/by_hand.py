from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from stresslens.core.errors import ConfigError


@torch.no_grad()
def by_hand(model: nn.Module, x: Tensor, y: Tensor, *, loss: Literal["mse", "cross_entropy"] = "mse") -> Tensor:
    """The loss of a linear model or an MLP with its gradient written out: no autograd, and no module is called.

    Everything is class-major, (features, N). With logits z and one-hot labels t, the gradient of the mean squared error over
    images and classes is 2(z - t)/(NK), of the mean cross-entropy (softmax(z) - t)/N; each layer passes Wᵀg to the one below
    where its ReLU was open, and takes g·aᵀ for its weight and the sum of g for its bias. Returns the loss without a graph,
    which tells the loop that the gradients are in place.

    Raises ConfigError for a net of other layers than Flatten, Linear and ReLU.
    """
    normalize, net = model.get_submodule("normalize"), model.get_submodule("net")
    layers = [layer for layer in net.children() if isinstance(layer, nn.Linear)]
    if not isinstance(net, nn.Sequential) or any(not isinstance(m, nn.Flatten | nn.Linear | nn.ReLU) for m in net):
        raise ConfigError("objective by_hand differentiates linear models and MLPs only; use `objective: supervised`")
    inputs = [normalize(x).flatten(1).t()]
    for layer in layers[:-1]:
        inputs.append(torch.addmm(layer.bias[:, None], layer.weight, inputs[-1]).relu_())
    z = torch.addmm(layers[-1].bias[:, None], layers[-1].weight, inputs[-1])  # (K, N)
    if loss == "mse":
        g = z.scatter_(0, y[None], -1.0, reduce="add")
        value = g.square().mean()
        g = g.mul_(2 / g.numel())
    else:
        log_p = torch.log_softmax(z, 0)
        value = -log_p.gather(0, y[None]).mean()
        g = log_p.exp_().scatter_(0, y[None], -1.0, reduce="add").div_(len(y))
    for layer, a in zip(reversed(layers), reversed(inputs)):
        _accumulate(layer.weight, g.mm(a.t()))
        _accumulate(layer.bias, g.sum(1))
        if layer is not layers[0]:
            g = layer.weight.t().mm(g).mul_(a > 0)
    return value


def _accumulate(parameter: nn.Parameter, gradient: Tensor) -> None:
    parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
