"""The graph that autograd records of a forward pass: its nodes, and which of them are ReLUs."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.autograd.graph import Node

_BOUNDS = {
    "ClampBackward": "min",
    "ClampMinBackward": "min",
    "HardtanhBackward": "min_val",
    "ThresholdBackward": "threshold",
    "LeakyReluBackward": "negative_slope",
}
"""Steps that set what is below a bound to it (or multiply it with a slope), and the bound's name."""
_LARGER = ("MaximumBackward", "FmaxBackward")
_CHOICES = ("WhereBackward", "MaskedFillBackward", "IndexPutBackward")


def nodes(output: Tensor) -> Iterator[Node]:
    """Every node that the gradient of `output` passes, each once."""
    left, seen = [output.grad_fn], set()
    while left:
        node = left.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        left.extend(following for following, _ in node.next_functions)
        yield node


def is_relu(node: Node) -> bool:
    """Whether the step sets negative numbers to 0 and passes others on, up to a largest one.

    It is known by what was computed, not by the module: ReLU, ReLU6, `F.relu`, `relu_`,
    `clamp(min=0)`, `maximum(x, 0)`, `threshold(x, 0, 0)`, `leaky_relu(x, 0)`.
    """
    kind = _kind(node)
    if kind == "ReluBackward":
        return True
    if kind in _BOUNDS:
        return _is_zero(getattr(node, f"_saved_{_BOUNDS[kind]}"))
    return kind in _LARGER and any(_is_zero(constant) for constant in _constants(node))


def is_mask(node: Node) -> bool:
    """Whether the step sets chosen numbers to a constant, by a condition or a factor of 0 and 1.

    It may be a ReLU written otherwise, such as `x * (x > 0)`, or something else.
    """
    if _kind(node) in _CHOICES:
        return len(node.next_functions) < 2 or any(source is None for source, _ in node.next_functions)
    return _kind(node) == "MulBackward" and any(_is_of_zeros_and_ones(c) for c in _constants(node))


def is_opaque(node: Node) -> bool:
    """Whether several steps are computed as one, so that no ReLU can be seen in it (a custom
    autograd function, a compiled or checkpointed part)."""
    name = node.name().rpartition("::")[2]
    return not name[-1:].isdigit() and name not in ("AccumulateGrad", "NotImplemented")


def _kind(node: Node) -> str:
    return node.name().rstrip("0123456789")


def _constants(node: Node) -> list[object]:
    """Which of the two numbers that are multiplied, or compared, pass no gradient on."""
    sources = zip(("self", "other"), node.next_functions)
    return [getattr(node, f"_saved_{name}") for name, (source, _) in sources if source is None]


def _is_zero(value: object) -> bool:
    if isinstance(value, Tensor):
        return not value.any()
    return isinstance(value, int | float) and value == 0


def _is_of_zeros_and_ones(value: object) -> bool:
    if not isinstance(value, Tensor) or value.ndim == 0:
        return False
    if value.dtype == torch.bool:
        return True
    zeros, ones = value == 0, value == 1
    return bool((zeros | ones).all() and zeros.any() and ones.any())
