"""A small net as a flat list of steps and a block of numbers, which a page computes without torch.

`flat_graph` writes it, `FlatGraph.run` computes the steps in torch as `templates/engine.js` does in a
browser.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from stresslens.core.errors import ConfigError, first_line
from stresslens.core.types import Shape
from stresslens.evaluation.flat_operations import KINDS, OPERATIONS
from stresslens.evaluation.flat_writer import FlatWriter, Given, Unwritable, Value
from stresslens.evaluation.traced_graph import traced_graph

MOST_BYTES = 8_000_000
"""A net with more bytes of weights is refused."""
ELSEWHERE = "other programs compute every net: --to onnx, torch or safetensors"

MAPS: dict[str, Callable[..., Tensor]] = {
    "clamp": lambda x, low, high: x.clamp(low, high),
    "leaky": lambda x, slope: F.leaky_relu(x, slope),
    "elu": lambda x, alpha, scale, rate: scale * torch.where(x > 0, x, alpha * torch.expm1(rate * x)),
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "silu": F.silu,
    "hardswish": F.hardswish,
    "hardsigmoid": F.hardsigmoid,
    "softplus": lambda x, beta, threshold: F.softplus(x, beta, threshold),
    "exp": torch.exp,
    "log": torch.log,
    "abs": torch.abs,
    "scale": lambda x, factor: x * factor,
    "power": lambda x, exponent: x**exponent,
}
TWO: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": torch.add,
    "sub": torch.sub,
    "mul": torch.mul,
    "div": torch.div,
    "max": torch.maximum,
    "min": torch.minimum,
}
REDUCTIONS: dict[str, Callable[..., Tensor]] = {"mean": torch.mean, "sum": torch.sum, "max": torch.amax}


@dataclass(frozen=True)
class FlatGraph:
    """Steps from an image (C, H, W) in [0, 1] to logits (K,), and their numbers as 4-byte words, little
    end first: float32, and int32 for places."""

    steps: Sequence[dict[str, Any]]
    content: bytes

    def run(self, images: Tensor) -> Tensor:
        """Logits (N, K) of images (N, C, H, W)."""
        values: list[Tensor] = []
        with torch.no_grad():
            for step in self.steps:
                values.append(self._computed(step, [values[k] for k in step["of"]], images))
        return values[-1]

    def _array(self, place: Sequence[int] | None, *sides: int) -> Tensor | None:
        if place is None:
            return None
        floats = np.frombuffer(self.content, "<f4", place[1], 4 * place[0]).astype(np.float32)
        return torch.from_numpy(floats).view(*sides)

    def _computed(self, step: dict[str, Any], of: list[Tensor], images: Tensor) -> Tensor:
        sides = step["sides"]
        match step["kind"]:
            case "image":
                return images
            case "constant":
                found = self._array(step["values"], *sides)
                assert found is not None
                return found.expand(len(images), *sides)
            case "conv":
                bias = self._array(step.get("bias"), -1)
                inputs = of[0].shape[1] // step["groups"]
                weight = self._array(step["weight"], sides[0], inputs, *step["kernel"])
                assert weight is not None
                padded = F.pad(of[0], _padding(step, of[0]))
                return F.conv2d(padded, weight, bias, step["stride"], 0, step["dilation"], step["groups"])
            case "linear":
                weight = self._array(step["weight"], sides[-1], of[0].shape[-1])
                assert weight is not None
                return F.linear(of[0], weight, self._array(step.get("bias"), -1))
            case "maxpool":
                padded = F.pad(of[0], _padding(step, of[0]), value=-torch.inf)
                return F.max_pool2d(padded, step["kernel"], step["stride"], 0, step["dilation"])
            case "separable":
                rows = self._array(step["rows"], sides[1], of[0].shape[2])
                columns = self._array(step["columns"], sides[2], of[0].shape[3])
                return torch.einsum("oi,ncij,pj->ncop", rows, of[0], columns)
            case "map":
                return MAPS[step["name"]](of[0], *step["numbers"])
            case "two":
                return TWO[step["name"]](*of)
            case "reduce":
                return REDUCTIONS[step["name"]](of[0], step["axis"] + 1, keepdim=True)
            case "cat":
                return torch.cat(of, step["axis"] + 1)
            case _:
                return self._gathered(step, of[0])

    def _gathered(self, step: dict[str, Any], x: Tensor) -> Tensor:
        flat, sides = x.flatten(1), (len(x), *step["sides"])
        if (place := step.get("index")) is None:
            return flat.reshape(sides)
        index = torch.from_numpy(np.frombuffer(self.content, "<i4", place[1], 4 * place[0]).astype(np.int64))
        return torch.where(index < 0, step["fill"], flat[:, index.clamp_min(0)]).view(sides)


def _padding(step: dict[str, Any], x: Tensor) -> list[int]:
    """What is added left, right, above and below: in front what the step says, behind what is missing."""
    sizes = zip(
        step["sides"][1:], x.shape[2:], step["kernel"], step["stride"], step["padding"], step["dilation"]
    )
    ends = [
        (pad, (out - 1) * stride + dilation * (kernel - 1) + 1 - side - pad)
        for out, side, kernel, stride, pad, dilation in sizes
    ]
    return [*ends[1], *ends[0]]


def flat_graph(model: nn.Module, shape: Shape) -> FlatGraph:
    """The model, from images of a shape to logits, as a flat graph.

    Raises ConfigError for a model that torch cannot trace, for one with an operation that a page cannot
    compute, and for one with more than `MOST_BYTES` of weights.
    """
    held = sum(parameter.numel() * 4 for parameter in model.parameters())
    if held > MOST_BYTES:
        raise _too_large(held)
    program = traced_graph(model, shape)
    with torch.no_grad():
        graph = _Walk(program, shape).graph()
    if len(graph.content) > MOST_BYTES:
        raise _too_large(len(graph.content))
    return graph


def _too_large(size: int) -> ConfigError:
    return ConfigError(
        f"the net has {size / 1e6:.3g} MB of weights, and a page holds at most {MOST_BYTES / 1e6:g} MB; "
        f"train a smaller one (model options such as widths and channels), or: {ELSEWHERE}"
    )


class _Walk:
    """Goes through a traced program with an example of two images: what depends on them becomes steps,
    all else is a constant."""

    def __init__(self, program: torch.export.ExportedProgram, shape: Shape) -> None:
        self.program, self.shape = program, shape
        self.write = FlatWriter()
        self.values: dict[fx.Node, Any] = {}
        """What each node gives: a `Value` if it depends on the images."""

    def graph(self) -> FlatGraph:
        wanted = self._wanted()
        self._check_known(wanted)
        for node in self.program.graph.nodes:
            if node.op == "placeholder":
                self.values[node] = self._placeholder(node)
            elif node in wanted:
                self.values[node] = self._called(node)
        logits = self.values[self._logits]
        if not isinstance(logits, Value):
            raise ConfigError("the net's answer does not depend on the image, so that no page is written")
        if logits.step != len(self.write.steps) - 1:
            self.write.step("gather", [logits.step], logits.sides)
        return FlatGraph(self.write.steps, b"".join(self.write.blocks))

    @property
    def _logits(self) -> fx.Node:
        name = self.program.graph_signature.user_outputs[0]
        found: fx.Node = next(node for node in self.program.graph.nodes if node.name == name)
        return found

    def _wanted(self) -> set[fx.Node]:
        """The nodes that the logits depend on, and those that change one of these in place."""
        wanted: set[fx.Node] = set()
        left = [self._logits]
        while left:
            node = left.pop()
            if node not in wanted:
                wanted.add(node)
                left += node.all_input_nodes
                left += [user for user in node.users if _in_place(user) and user.args[0] is node]
        return wanted

    def _check_known(self, wanted: set[fx.Node]) -> None:
        """Refuses a net by an operation that is not known, rather than by what surrounds it."""
        inputs = self.program.graph_signature.user_inputs
        of_images: set[fx.Node] = set()
        for node in self.program.graph.nodes:
            if node.name in inputs or not of_images.isdisjoint(node.all_input_nodes):
                of_images.add(node)
                values = isinstance(node.meta.get("val"), Tensor | list | tuple)
                known = node.op != "call_function" or node.target is operator.getitem
                if node in wanted and values and not known and _name(node.target) not in OPERATIONS:
                    raise self._refusal(node, "")

    def _placeholder(self, node: fx.Node) -> Any:
        signature = self.program.graph_signature
        for names in (
            signature.inputs_to_parameters,
            signature.inputs_to_buffers,
            signature.inputs_to_lifted_tensor_constants,
        ):
            if node.name in names:
                name = names[node.name]
                state = self.program.state_dict
                return (state[name] if name in state else self.program.constants[name]).detach().clone()
        random = torch.Generator().manual_seed(0)
        images = torch.rand(2, *self.shape, generator=random)
        return Value(self.write.step("image", [], self.shape), images)

    def _called(self, node: fx.Node) -> Any:
        args, kwargs = (
            fx.node.map_arg(given, lambda n: self.values[n]) for given in (node.args, node.kwargs)
        )
        plain_args, plain_kwargs = _examples(args), _examples(kwargs)
        try:
            out = node.target(*plain_args, **plain_kwargs)  # type: ignore[operator]
        except Exception as error:  # an operation may raise anything
            raise self._refusal(node, first_line(error)) from error
        held = [value for value in _leaves([args, kwargs]) if isinstance(value, Value)]
        if not held or not isinstance(out, Tensor):
            # Numbers (sizes), constants, and lists whose parts `getitem` takes.
            return _Parts(node, args, kwargs) if held and isinstance(out, list | tuple) else out
        try:
            step = self._step(node, args, kwargs, out)
        except Unwritable as error:
            raise self._refusal(node, str(error)) from error
        value = Value(step, out.clone())
        if _in_place(node):
            self.values[node.args[0]] = value  # type: ignore[index]
        return value

    def _step(self, node: fx.Node, args: Any, kwargs: Any, out: Tensor) -> int:
        target: Any = node.target
        part = None
        if target is operator.getitem and isinstance(args[0], _Parts):
            (parts, part), kwargs = args, args[0].kwargs
            target, args = parts.node.target, parts.args
        write = OPERATIONS[_name(target)]
        if out.dtype != torch.float32:
            raise Unwritable(f"it computes in {str(out.dtype).removeprefix('torch.')}")
        given = _given(target, args, kwargs)

        def call(x: Tensor) -> Tensor:
            """The operation with another value in place of its first one, padded with 0."""
            found: Tensor = target(*_examples(args, x), **_examples(kwargs, x))
            return found if part is None else found[part]

        if given.get("value") and _name(target) in ("constant_pad_nd", "pad"):
            zero = {**given, "value": 0.0}
            called: Given = {**given, "call": lambda x: target(**_examples(zero, x))}
        else:
            called = {**given, "call": call}
        return write(self.write, called, out)

    def _refusal(self, node: fx.Node, why: str) -> ConfigError:
        stack = list(node.meta.get("nn_module_stack", {}).values())
        path, kind = stack[-1] if stack else ("", "")
        kind = kind if isinstance(kind, str) else kind.__name__
        place = path.removeprefix("model").removeprefix(".")
        target = node.args[0].target if node.target is operator.getitem else node.target  # type: ignore[union-attr]
        where = f"{place} ({kind.rpartition('.')[2]})" if place else "the net"
        because = f": {why}" if why else ""
        return ConfigError(
            f"a page cannot compute {_name(target)} in {where}{because}. It computes small nets of {KINDS}; "
            f"{ELSEWHERE}"
        )


@dataclass(frozen=True)
class _Parts:
    """An operation that gives a list; `getitem` takes parts of it."""

    node: fx.Node
    args: Any
    kwargs: Any


def _name(target: Any) -> str:
    """The name of an operation, without that it works in place."""
    schema = getattr(target, "_schema", None)
    name: str = (
        schema.name.rpartition("::")[2] if schema is not None else getattr(target, "__name__", str(target))
    )
    return name.rstrip("_") or name


def _in_place(node: fx.Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    return schema is not None and schema.is_mutable and bool(node.args)


def _given(target: Any, args: Any, kwargs: Any) -> dict[str, Any]:
    """All arguments by name, with their defaults."""
    arguments = target._schema.arguments
    given = {each.name: each.default_value for each in arguments if each.has_default_value()}
    named = dict(zip((each.name for each in arguments), args))
    missing = {each.name: None for each in arguments}
    return {**missing, **given, **named, **kwargs}


def _examples(given: Any, x: Tensor | None = None) -> Any:
    """Arguments with plain tensors in place of each `Value`: its example, or `x`."""
    if isinstance(given, Value):
        return given.example if x is None else x
    if isinstance(given, _Parts):
        return given.node.target(*_examples(given.args), **_examples(given.kwargs))  # type: ignore[operator]
    if isinstance(given, dict):
        return {key: _examples(value, x) for key, value in given.items()}
    if isinstance(given, list | tuple):
        return [_examples(value, x) for value in given]
    return given


def _leaves(given: Any) -> list[Any]:
    if isinstance(given, Value | _Parts):
        return [given] if isinstance(given, Value) else _leaves([given.args, given.kwargs])
    values = given.values() if isinstance(given, dict) else given if isinstance(given, list | tuple) else None
    return [given] if values is None else [leaf for value in values for leaf in _leaves(value)]
