from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from stresslens.core.answers import predicted
from stresslens.core.copies import copied, eager_module
from stresslens.core.errors import ConfigError
from stresslens.core.inspection import fresh_images, has_global_hooks
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
KNOWN = (*MONOTONE, Normalize, nn.Linear, nn.Conv2d, nn.BatchNorm1d, nn.BatchNorm2d)
CORNERS, INSIDE = 6, 2
"""Points of each ball at which the bounds are checked: random corners of the ball, and random points
inside. One more corner is the one that the gradient points to."""
ROUNDING = 1e-4
"""Logits may leave their bounds by this share of the largest logit."""


def interval(
    model: nn.Module, x: Tensor, y: Tensor, *, norm: Literal["linf"] = "linf", halvings: Count = 20
) -> Tensor:
    """Interval bound propagation (IBP): the largest certified linf radius of each image.

    At this radius, interval bounds still prove the class y (Gowal et al. 2018). Bounds on every
    layer's outputs follow from those on its inputs, in float64; they are bounds of the model in
    exact arithmetic. The last linear layer is combined with the differences of logits. The bounds
    are exact for a model of one affine layer and get looser with every further layer; for a model
    that was not trained for them, the radius is small. It is found by `halvings` bisections of [0,
    1], and is itself certified. x (N, C, H, W) in [0, 1], y (N,) → (N,): NaN where no radius is
    certified, -inf where the prediction is not y.

    A layer is known by its exact class, without hooks; parametrised weights are taken as they are
    computed. The bounds are compared with the model at points of each ball. Raises ConfigError with
    the name of the first layer that is not supported, and if the model leaves its bounds.
    """
    layers = list(_layers(eager_module(model)))
    images = x.double()

    def proven(radius: Tensor) -> Tensor:
        with torch.no_grad():
            return _least_margin(layers, *_ball(images, radius), y) > 0

    low, high = (
        torch.zeros(len(x), dtype=torch.float64, device=x.device),
        torch.ones(len(x), dtype=torch.float64, device=x.device),
    )
    proven_at_zero = proven(low)
    for _ in range(halvings):
        middle = (low + high) / 2
        holds = proven(middle)
        low, high = torch.where(holds, middle, low), torch.where(holds, high, middle)
    _check_bounds(model, layers, x, y, low)
    with torch.no_grad():
        correct = predicted(model(x.clone())) == y
    return torch.where(proven_at_zero, low, torch.where(correct, torch.nan, -torch.inf)).cpu()


def _ball(images: Tensor, radius: Tensor) -> Bounds:
    around = radius.reshape(-1, 1, 1, 1)
    return (images - around).clamp_min(0), (images + around).clamp_max(1)


def _layers(module: nn.Module, name: str = "") -> Iterator[nn.Module]:
    """The layers of a model in their order, in float64."""
    shown = f"{type(module).__name__} {name}".rstrip()
    if reason := _reason_against(module):
        raise ConfigError(
            f"interval bounds do not support the layer {shown}: {reason}; they support plain "
            "Sequential models of linear and convolutional layers, batch norm, ReLU and pooling"
        )
    if type(module) is nn.Sequential:
        for place, layer in module._modules.items():  # a layer that occurs twice counts twice
            if layer is not None:
                yield from _layers(layer, f"{name}.{place}".lstrip("."))
    else:
        yield copied(_without_parametrisation(module)).double().eval()


def _reason_against(module: nn.Module) -> str:
    """Why a module may compute something else than its class promises; empty if it cannot."""
    kind = _kind(module)
    if isinstance(module, torch.jit.ScriptModule):
        return "TorchScript hides what it computes"
    if kind not in (nn.Sequential, *KNOWN):
        base = next((known.__name__ for known in (nn.Sequential, *KNOWN) if isinstance(module, known)), "")
        return f"a class derived from {base} may compute something else" if base else "it is not known"
    own = [hook for hook in module._forward_pre_hooks.values() if hook is not fresh_images]
    if own or module._forward_hooks or has_global_hooks():
        return "it has forward hooks (as the old weight_norm and spectral_norm do)"
    replaced = [name for name in vars(module) if callable(getattr(kind, name, None))]
    if replaced or not kind.forward.__module__.startswith(("torch.nn.", "stresslens.")):
        return f"its method {replaced[0] if replaced else 'forward'} was replaced"
    if module.training and (isinstance(module, nn.Dropout | nn.Dropout2d) or kind is not type(module)):
        return "it is in training mode"
    if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) and (
        module.training or module.running_mean is None or module.running_var is None
    ):
        return "it uses the statistics of the batch, so that an image's logits depend on other images"
    if isinstance(module, nn.MaxPool2d) and module.return_indices:
        return "return_indices gives a pair"
    if isinstance(module, nn.AvgPool2d) and (module.divisor_override or 1) < 0:
        return "its divisor is negative"
    if isinstance(module, nn.Flatten) and module.start_dim != 1:
        return f"it flattens from dimension {module.start_dim} on"
    narrow = {p.dtype for p in module.parameters()} - {torch.float32, torch.float64}
    return f"{str(narrow.pop()).removeprefix('torch.')} rounds too much for a proof" if narrow else ""


def _kind(module: nn.Module) -> type[nn.Module]:
    """The class of a module; of a parametrised one (torch.nn.utils.parametrize), the class before."""
    return type(module).__bases__[0] if parametrize.is_parametrized(module) else type(module)


def _without_parametrisation(module: nn.Module) -> nn.Module:
    """A parametrised layer as a plain one, with the weights that it computes now."""
    kind = _kind(module)
    if kind is type(module):
        return module
    plain = kind.__new__(kind)
    nn.Module.__init__(plain)
    plain.train(module.training)
    for name, value in vars(module).items():
        vars(plain).setdefault(name, value)
    for name in module.parametrizations:  # type: ignore[union-attr]
        one, other = (getattr(module, name).detach() for _ in range(2))
        if not torch.equal(one, other):
            raise ConfigError(f"interval bounds do not support {kind.__name__}: its {name} is random")
        plain.register_parameter(name, nn.Parameter(one))
    for name, parameter in module.named_parameters(recurse=False):
        plain.register_parameter(name, parameter)
    for name, buffer in module.named_buffers(recurse=False):
        plain.register_buffer(name, buffer)
    if "bias" not in plain._parameters and kind in (nn.Linear, nn.Conv2d):
        plain.register_parameter("bias", None)
    return plain


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


def _check_bounds(model: nn.Module, layers: list[nn.Module], x: Tensor, y: Tensor, radius: Tensor) -> None:
    """Raises ConfigError if the model, at points of the balls of `radius` (N,) around images x, gives
    logits outside the bounds, or another class than the proven y."""
    images = x.double()
    low, high = _ball(images, radius)
    with torch.no_grad():
        lowest, highest = low.clone(), high.clone()
        for layer in layers:
            lowest, highest = _propagated(layer, lowest, highest)
        for near in (x, *_points(model, x, y, radius)):
            inside = near.double().clamp(low, high).to(x.dtype)
            logits = model(inside.clone()).double()
            allowed = ROUNDING * logits.abs().amax(1, keepdim=True).clamp_min(1)
            least = logits.gather(1, y[:, None]) - logits.scatter(1, y[:, None], -torch.inf)
            outside = ((logits < lowest - allowed) | (logits > highest + allowed)).any(1)
            outside |= ((least < -allowed).any(1)) & (radius > 0)
            if bool(outside.any()):
                at = float(radius[outside][0])
                raise ConfigError(
                    f"interval bounds contradict the model: at a point within {at:.4g} of an image "
                    f"({int(outside.sum())} of {len(x)}), its logits are outside the bounds; "
                    "a layer computes something else than its class promises, so nothing is certified"
                )


def _points(model: nn.Module, x: Tensor, y: Tensor, radius: Tensor) -> Iterator[Tensor]:
    """Points of the balls: the corner that the gradient of the margin points to, random corners, and
    random points inside."""
    around = radius.reshape(-1, 1, 1, 1).to(x.dtype)
    with torch.enable_grad():
        point = x.detach().clone().requires_grad_()
        logits = model(point.clone())
        margin = logits.logsumexp(1) - logits.gather(1, y[:, None]).squeeze(1)
        slope = (
            torch.autograd.grad(margin.sum(), point, allow_unused=True)[0] if margin.requires_grad else None
        )
    if slope is not None:
        yield x + around * slope.sign()
    generator = torch.Generator().manual_seed(0)
    for k in range(CORNERS + INSIDE):
        noise = (2 * torch.rand(x.shape, generator=generator) - 1).to(x)
        yield x + around * (noise.sign() if k < CORNERS else noise)
