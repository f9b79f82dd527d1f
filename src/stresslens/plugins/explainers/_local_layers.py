"""The leading layers of a net that see a few pixels each, and what follows them."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from stresslens.core.inspection import is_plain
from stresslens.core.layers import Dropout, Normalize

SPATIAL = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)
ACTIVATIONS = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish),
    *(nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh, nn.Sigmoid, nn.Tanh, nn.Softplus),
)
DROPOUTS = (nn.Identity, nn.Dropout, nn.Dropout2d, Dropout)
KNOWN = (*SPATIAL, *ACTIVATIONS, *DROPOUTS, nn.BatchNorm2d, Normalize, nn.Flatten, nn.Linear)
FUNCTIONS: dict[Any, type[nn.Module]] = {
    F.relu: nn.ReLU,
    torch.relu: nn.ReLU,
    "relu": nn.ReLU,
    F.max_pool2d: nn.MaxPool2d,
    F.avg_pool2d: nn.AvgPool2d,
    torch.flatten: nn.Flatten,
    "flatten": nn.Flatten,
}
"""Calls in a forward method, by function or by name of a tensor's method, and the same as layers."""


@dataclass(frozen=True)
class Reach:
    """Which positions of its input a layer sees along one side: output o sees `kernel` of them from
    o · stride - padding on."""

    kernel: int
    stride: int
    padding: int

    def then(self, following: Reach) -> Reach:
        """That of this layer and a following one without padding."""
        kernel = self.kernel + (following.kernel - 1) * self.stride
        return Reach(kernel, self.stride * following.stride, self.padding)

    def changed(self, starts: Tensor, size: int, side: int) -> tuple[Tensor, int]:
        """The starts, and the size, of the outputs that see changed inputs: `size` of them from each of
        `starts` on. There are `side` outputs."""
        count = min(side, (size + self.kernel - 2) // self.stride + 1)
        first = -((self.kernel - 1 - self.padding - starts) // self.stride)
        return first.clamp(0, side - count), count

    def seen(self, starts: Tensor, size: int) -> tuple[Tensor, int]:
        """The starts, and the size, of what `size` outputs from each of `starts` on see."""
        return starts * self.stride - self.padding, (size - 1) * self.stride + self.kernel


@dataclass(frozen=True)
class Stage:
    """A convolution, or a pooling, and what follows it up to the next convolution or padding."""

    layers: nn.Sequential
    bare: nn.Sequential
    """The same layers without the padding."""
    down: Reach
    across: Reach
    outside: float
    """What the padding holds."""

    @classmethod
    def of(cls, layers: Sequence[nn.Module]) -> Stage:
        first = copy.copy(layers[0])
        first.padding = (0, 0)  # type: ignore[assignment]
        (down, across), *following = [reaches(layer) for layer in layers if isinstance(layer, SPATIAL)]
        for then_down, then_across in following:
            down, across = down.then(then_down), across.then(then_across)
        outside = -torch.inf if isinstance(layers[0], nn.MaxPool2d) else 0.0
        return cls(nn.Sequential(*layers), nn.Sequential(first, *layers[1:]), down, across, outside)


@dataclass(frozen=True)
class LocalLayers:
    """A net in parts: layers that work pixel by pixel, stages, at times a linear layer on what they
    give, and the rest."""

    pixelwise: nn.Sequential
    stages: Sequence[Stage]
    linear: nn.Linear | None
    rest: nn.Module
    """What follows the stages, or the linear layer."""


def reaches(layer: nn.Module) -> tuple[Reach, Reach]:
    """How far a convolution or a pooling sees, down and across."""
    kernel, stride, dilation = (
        _pair(getattr(layer, name, 1)) for name in ("kernel_size", "stride", "dilation")
    )
    padding: tuple[int, int] = _pair(layer.padding)
    if isinstance(layer, nn.Conv2d):
        left, _, top, _ = layer._reversed_padding_repeated_twice
        padding = top, left
    down, across = (
        Reach(d * (k - 1) + 1, s, p) for k, s, p, d in zip(kernel, stride, padding, dilation, strict=True)
    )
    return down, across


def _is_padded(layer: nn.Module) -> bool:
    return isinstance(layer, SPATIAL) and _pair(layer.padding) != (0, 0)


def _pair(value: Any) -> tuple[Any, Any]:
    first, second = value if isinstance(value, tuple | list) else (value, value)
    return first, second


def local_layers(model: nn.Module) -> LocalLayers | None:
    """The parts of a net in evaluation mode; None where its first layers do not follow each other, or are
    not known. Raises what torch.fx does where it cannot trace the net."""
    graph = _Tracer().trace(model)
    node = next(each for each in graph.nodes if each.op == "placeholder")
    pixelwise: list[nn.Module] = []
    stages: list[list[nn.Module]] = []
    while (found := _following(node, model)) and not isinstance(found[1], nn.Flatten | nn.Linear):
        node, layer = found
        if not stages and not isinstance(layer, SPATIAL):
            pixelwise.append(layer)
        elif isinstance(layer, nn.Conv2d) or not stages or _is_padded(layer):
            stages.append([layer])
        else:
            stages[-1].append(layer)
    if not stages:
        return None
    linear = None
    if found and isinstance(found[1], nn.Flatten):
        head = _following(found[0], model)
        if head and isinstance(head[1], nn.Linear):
            node, linear = head
    rest = _rest(model, node)
    return LocalLayers(nn.Sequential(*pixelwise), [Stage.of(stage) for stage in stages], linear, rest)


class _Tracer(fx.Tracer):
    """Traces a net in one thread. torch.fx replaces what every module does when it is called meanwhile; in
    other threads modules run as ever."""

    def __init__(self) -> None:
        super().__init__()
        self._thread = threading.get_ident()

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if threading.get_ident() != self._thread:
            return forward(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        if threading.get_ident() != self._thread:
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, Normalize | Dropout) or super().is_leaf_module(m, module_qualified_name)


def _following(node: fx.Node, model: nn.Module) -> tuple[fx.Node, Any] | None:
    """The known layer that reads what a node gives, if all that follows goes through it."""
    found = [(user, layer) for user in node.users if (layer := _layer(user, model)) is not None]
    return found[0] if len(found) == 1 and _slice(found[0][0]) is not None else None


def _slice(end: fx.Node) -> set[fx.Node] | None:
    """The nodes between one and the output; None if the output also depends on the input past it."""
    wanted: set[fx.Node] = {end}
    left = [node for node in end.graph.nodes if node.op == "output"]
    while left:
        node = left.pop()
        if node.op == "placeholder":
            return None
        if node not in wanted:
            wanted.add(node)
            left += node.all_input_nodes
    return wanted


def _rest(model: nn.Module, end: fx.Node) -> nn.Module:
    """What computes the output from what a node gives."""
    wanted = _slice(end)
    assert wanted is not None
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for node in end.graph.nodes:
        if node is end:
            copies[node] = graph.placeholder("values")
        elif node in wanted:
            copies[node] = graph.node_copy(node, copies.__getitem__)
    return fx.GraphModule(model, graph)


def _layer(node: fx.Node, model: nn.Module) -> nn.Module | None:
    """What a node computes, as a layer that is known, and that reads this one tensor."""
    if len(node.all_input_nodes) != 1 or node.args[:1] != (node.all_input_nodes[0],):
        return None
    if node.op == "call_module":
        layer = model.get_submodule(str(node.target))
    elif node.target in FUNCTIONS:
        try:
            layer = FUNCTIONS[node.target](*node.args[1:], **node.kwargs)
        except TypeError:
            return None
    else:
        return None
    return layer if is_plain(layer) and _is_known(layer) else None


def _is_known(layer: nn.Module) -> bool:
    match layer:
        case nn.Conv2d():
            known = layer.padding_mode == "zeros"
        case nn.MaxPool2d():
            known = not (layer.ceil_mode or layer.return_indices)
        case nn.AvgPool2d():
            whole = layer.count_include_pad or not _is_padded(layer)
            known = whole and not (layer.ceil_mode or layer.divisor_override)
        case nn.BatchNorm2d():
            known = not layer.training and layer.running_mean is not None
        case nn.Flatten():
            known = (layer.start_dim, layer.end_dim) == (1, -1)
        case _:
            known = not layer.training if isinstance(layer, DROPOUTS) else True
    return known and type(layer) in KNOWN
