"""Nets that return more than their logits, in the ways of torchvision, timm and Hugging Face, and nets
in other precisions. Each takes images (N, 1, 8, 8) and has 3 classes."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from forward_passes import CLASSES, layers
from torch import Tensor, nn


class Heads(nn.Module):
    """Two heads on the same features; `form` makes what the net returns from both logits and the
    features."""

    def __init__(self, form: Callable[[bool, Tensor, Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.features = layers()[:4]
        self.head, self.auxiliary = nn.Linear(64, CLASSES), nn.Linear(64, CLASSES)
        self.form = form

    def forward(self, x: Tensor) -> Any:
        features = self.features(x)
        return self.form(self.training, self.head(features), self.auxiliary(features), features)


class Named(NamedTuple):
    """As torchvision's GoogLeNetOutputs; `aux` is None in evaluation mode."""

    logits: Tensor
    aux: Tensor | None


@dataclass
class Output:
    logits: Tensor
    hidden: tuple[Tensor, ...]


class ModelOutput(OrderedDict[str, Any]):
    """As the outputs of Hugging Face's transformers: a dictionary with attributes."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


class HalfInside(nn.Module):
    """Features in half precision behind a float32 first layer, which follow the dtype of the weights."""

    def __init__(self) -> None:
        super().__init__()
        made = layers()
        self.first, self.rest = made[:3], made[3:].bfloat16()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.rest(self.first(x).to(self.rest[1].weight.dtype)).to(x.dtype)
        return out


class WithMaps(nn.Module):
    """Plain enough for TorchScript."""

    def __init__(self) -> None:
        super().__init__()
        self.features, self.head = layers()[:3], nn.Linear(64, CLASSES)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        maps = self.features(x)
        return maps, self.head(maps.flatten(1))


def scripted_with_maps() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        made: nn.Module = torch.jit.script(WithMaps())
    return made


SEVERAL_OUTPUTS: dict[str, Callable[[], nn.Module]] = {
    "tuple in training": lambda: Heads(lambda training, a, b, f: (a, b) if training else a),
    "list in training": lambda: Heads(lambda training, a, b, f: [a, [b, f[:, :, None]]] if training else a),
    "tuple of one": lambda: Heads(lambda training, a, b, f: (a + b,)),
    "tuple with maps": lambda: Heads(lambda training, a, b, f: (f.view(-1, 4, 4, 4), a + b)),
    "named tuple": lambda: Heads(lambda training, a, b, f: Named(a, b if training else None)),
    "dictionary": lambda: Heads(lambda training, a, b, f: {"features": f, "logits": a, "aux": b}),
    "dataclass": lambda: Heads(lambda training, a, b, f: Output(a + b, (f,))),
    "model output": lambda: Heads(
        lambda training, a, b, f: ModelOutput(loss=None, logits=a + b, hidden_states=(f, f))
    ),
    "scripted tuple": scripted_with_maps,
}
"""Nets whose logits are clear."""

UNCLEAR: dict[str, Callable[[], nn.Module]] = {
    "two logits": lambda: Heads(lambda training, a, b, f: (a, b)),
    "logits and features": lambda: Heads(lambda training, a, b, f: (a, f)),
    "dictionary without logits": lambda: Heads(lambda training, a, b, f: {"out": a, "aux": b}),
    "no logits": lambda: Heads(lambda training, a, b, f: {"maps": f[:, :, None]}),
    "features first in training": lambda: Heads(lambda training, a, b, f: (f, a) if training else a),
}

PRECISIONS: dict[str, Callable[[], nn.Module]] = {
    "float16": lambda: layers().half(),
    "bfloat16": lambda: layers().bfloat16(),
    "bfloat16 inside": HalfInside,
}
