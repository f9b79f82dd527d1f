"""A small net whose forward pass can be exchanged, and ways to write it: those of a user's net."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SHAPE = (1, 8, 8)
CLASSES = 3


def layers(**other: nn.Module) -> nn.Sequential:
    """conv, relu, pool, flatten, linear; `other` replaces some by their names."""
    made = {
        "conv": nn.Conv2d(1, 4, 3, padding=1),
        "relu": nn.ReLU(),
        "pool": nn.MaxPool2d(2),
        "flatten": nn.Flatten(),
        "linear": nn.Linear(64, CLASSES),
    }
    return nn.Sequential(*(made | other).values())


class Net(nn.Module):
    """Features (conv, relu, pool) and a head; `how` is its forward pass."""

    def __init__(self, how: Callable[[Any, Tensor], Tensor], *extra: nn.Module, width: int = 64) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), *extra)
        self.head = nn.Linear(width, CLASSES)
        self.how = how

    def forward(self, x: Tensor) -> Tensor:
        return self.how(self, x)


def whole(net: Any, x: Tensor) -> Tensor:
    out: Tensor = net.head(net.features(x).flatten(1))
    return out


def with_seen(net: Any, x: Tensor) -> Tensor:
    """Adds what a hook has kept on the net."""
    logits = whole(net, x)
    return logits + net.seen.mean((2, 3))[:, :CLASSES]


def by_place(net: Any, x: Tensor) -> Tensor:
    seen = 0.0
    for place, layer in enumerate(net.features):
        x = layer(x)
        seen = seen + (x.mean((1, 2, 3))[:, None] if place == 1 else 0.0)
    return net.head(x.flatten(1)) + seen


def by_slice(net: Any, x: Tensor) -> Tensor:
    relu = net.features[:2](x)
    return net.head(net.features[2:](relu).flatten(1)) + relu.mean((1, 2, 3))[:, None]


def by_slice_and_whole(net: Any, x: Tensor) -> Tensor:
    return whole(net, x) + net.features[1:](net.features[0](x)).mean((1, 2, 3))[:, None]


def by_last(net: Any, x: Tensor) -> Tensor:
    x = net.features[:-1](x)
    return net.head(net.features[-1](x).flatten(1)) + x.amax((1, 2, 3))[:, None]


def by_children(net: Any, x: Tensor) -> Tensor:
    outputs = []
    for layer in net.features.children():
        x = layer(x)
        outputs.append(x.mean((1, 2, 3))[:, None])
    return net.head(x.flatten(1)) + outputs[1] - outputs[2]


def twice(net: Any, x: Tensor) -> Tensor:
    return whole(net, x) + whole(net, x.flip(-1))


def reads_weights(net: Any, x: Tensor) -> Tensor:
    return whole(net, x) * net.features[0].weight.abs().sum()


def asks_for_types(net: Any, x: Tensor) -> Tensor:
    kinds = [type(layer).__name__ for layer in net.features]
    return whole(net, x) * (1.0 if kinds == ["Conv2d", "ReLU", "MaxPool2d"] else -1.0)


def exact_sequential(net: Any, x: Tensor) -> Tensor:
    return whole(net, x) * (1.0 if type(net.features) is nn.Sequential else -1.0)


def viewed(net: Any, x: Tensor) -> Tensor:
    out: Tensor = net.head(net.features(x).view(-1, 64))
    return out


def strided(net: Any, x: Tensor) -> Tensor:
    features = net.features(x)
    return net.head(features.as_strided((len(x), 64), (64, 1)))  # type: ignore[no-any-return]


def by_layout(net: Any, x: Tensor) -> Tensor:
    return whole(net, x) * (1.0 if net.features(x).is_contiguous() else -1.0)


def under_no_grad(net: Any, x: Tensor) -> Tensor:
    with torch.no_grad():
        x.mul_(0.9)
    return whole(net, x)


def through_data(net: Any, x: Tensor) -> Tensor:
    x.data.mul_(0.9)
    return whole(net, x)


def writes_corner(net: Any, x: Tensor) -> Tensor:
    with torch.no_grad():
        x[:, :, :2, :2] = 0
    return whole(net, x)


def through_numpy(net: Any, x: Tensor) -> Tensor:
    x.detach().cpu().numpy()[:] *= 0.9
    return whole(net, x)


def clamps(net: Any, x: Tensor) -> Tensor:
    with torch.no_grad():
        x.clamp_(0.2, 0.8)
    return whole(net, x)


def functional(net: Any, x: Tensor) -> Tensor:
    return net.head(F.max_pool2d(F.relu(net.features[0](x)), 2).flatten(1))  # type: ignore[no-any-return]


def in_place_after_stored(net: Any, x: Tensor) -> Tensor:
    stored = net.features[0](x)
    kept = stored.mean((1, 2, 3))[:, None]
    out: Tensor = net.head(net.features[2](net.features[1](stored)).flatten(1)) + kept
    return out


def keeps(net: Any, x: Tensor) -> Tensor:
    net.seen = net.features(x)
    out: Tensor = net.head(net.seen.flatten(1))
    return out


def counts(net: Any, x: Tensor) -> Tensor:
    net.calls = getattr(net, "calls", 0) + 1
    return whole(net, x)


def draws_in_training(net: Any, x: Tensor) -> Tensor:
    return whole(net, x) * (random.random() + 0.5 if net.training else 1.0)


def drops_in_training(net: Any, x: Tensor) -> Tensor:
    out: Tensor = net.head(F.dropout(net.features(x).flatten(1), 0.5, net.training))
    return out


def scales_gradient(net: Any, x: Tensor) -> Tensor:
    features = net.features(x)
    if features.requires_grad:
        features.register_hook(lambda grad: 3 * grad)
    return net.head(features.flatten(1))  # type: ignore[no-any-return]


def scatters(net: Any, x: Tensor) -> Tensor:
    logits = whole(net, x)
    zeros = torch.zeros(len(x), CLASSES)
    return zeros.scatter(1, torch.arange(CLASSES).expand(len(x), -1), logits)
