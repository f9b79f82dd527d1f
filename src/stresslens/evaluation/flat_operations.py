"""The operations of a traced net that a page can compute, each written as steps of a `FlatWriter`.

`OPERATIONS` lists all of them by the name that torch gives them. A step computes one image; its kind is
one of those that `evaluation/flat_graph.py` and `templates/engine.js` know.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from stresslens.evaluation import flat_norms
from stresslens.evaluation.flat_writer import (
    FlatWriter,
    Given,
    Unwritable,
    Value,
    channel_sides,
    value_of,
    weights_of,
)

Write = Callable[[FlatWriter, Given, Tensor], int]
"""Writes an operation whose result for the example is the Tensor; the number of its last step."""


def _pair(value: Any) -> list[int]:
    sides = [value] if isinstance(value, int) else list(value)
    return [int(side) for side in (sides * 2 if len(sides) == 1 else sides)]


def _conv(write: FlatWriter, given: Given, out: Tensor) -> int:
    x, weight, bias = value_of(given, "input"), weights_of(given, "weight"), weights_of(given, "bias")
    assert weight is not None
    if x.example.ndim != 4:
        raise Unwritable("it is no convolution of pictures (channels, height, width)")
    dilation, padding = _pair(given["dilation"]), given["padding"]
    if isinstance(padding, str):
        whole = [d * (side - 1) for d, side in zip(dilation, weight.shape[2:])]
        padding = [0, 0] if padding == "valid" else [each // 2 for each in whole]
    return write.step(
        "conv",
        [x.step],
        out.shape[1:],
        weight=write.array(weight),
        bias=None if bias is None else write.array(bias),
        kernel=list(weight.shape[2:]),
        stride=_pair(given["stride"]),
        padding=_pair(padding),
        dilation=dilation,
        groups=given["groups"],
    )


def _linear(write: FlatWriter, given: Given, out: Tensor) -> int:
    return _affine(
        write, value_of(given, "input"), weights_of(given, "weight"), weights_of(given, "bias"), out
    )


def _affine(write: FlatWriter, x: Value, weight: Tensor | None, bias: Tensor | None, out: Tensor) -> int:
    assert weight is not None
    held = None if bias is None else write.array(bias)
    return write.step("linear", [x.step], out.shape[1:], weight=write.array(weight), bias=held)


def _addmm(write: FlatWriter, given: Given, out: Tensor) -> int:
    weight, bias = weights_of(given, "mat2"), weights_of(given, "self")
    if given["alpha"] != 1 or given["beta"] != 1:
        raise Unwritable("it has an alpha or a beta")
    assert weight is not None
    assert bias is not None
    return _affine(write, value_of(given, "mat1"), weight.t(), bias.expand(out.shape[1:]), out)


def _matmul(write: FlatWriter, given: Given, out: Tensor) -> int:
    names = [name for name in given if name != "out"]
    x, weight = value_of(given, names[0]), weights_of(given, names[1])
    if weight is None or weight.ndim != 2:
        raise Unwritable("it is no product with a matrix of weights")
    return _affine(write, x, weight.t(), None, out)


def _max_pool(write: FlatWriter, given: Given, out: Tensor) -> int:
    x, kernel = value_of(given, "self"), _pair(given["kernel_size"])
    return write.step(
        "maxpool",
        [x.step],
        out.shape[1:],
        kernel=kernel,
        stride=_pair(given["stride"]) if given["stride"] else kernel,
        padding=_pair(given["padding"]),
        dilation=_pair(given["dilation"]),
    )


def _separable(write: FlatWriter, given: Given, out: Tensor) -> int:
    """Average pooling and resizing: linear along the rows and along the columns. What it does to single
    rows and columns says with which weights."""
    x, call = value_of(given, "self" if "self" in given else "input"), given["call"]
    height, width = x.example.shape[2:]
    rows = torch.eye(height)[:, None, :, None].expand(height, 1, height, width).contiguous()
    columns = torch.eye(width)[:, None, None, :].expand(width, 1, height, width).contiguous()
    whole = call(torch.ones(1, 1, height, width))[0, 0]
    i, j = divmod(int(torch.topk(whole.flatten(), 1)[1]), whole.shape[1])
    down = call(rows)[:, 0, :, j].t() / whole[i, j]
    across = call(columns)[:, 0, i, :].t()
    return write.step(
        "separable", [x.step], out.shape[1:], rows=write.array(down), columns=write.array(across)
    )


def _operand(write: FlatWriter, value: Any, ndim: int) -> int:
    """The step of an operand of a result (N, …) with `ndim` dimensions."""
    if isinstance(value, Value):
        if value.example.ndim != ndim:
            raise Unwritable("it combines values of different dimensions")
        return value.step
    constant = torch.as_tensor(value, dtype=torch.float32)
    if constant.ndim == ndim:
        if len(constant) != 1:
            raise Unwritable("it has other weights for each image of a batch")
        constant = constant[0]
    return write.constant(constant, [1] * (ndim - 1 - constant.ndim) + list(constant.shape))


def _two(name: str, *, swapped: bool = False) -> Write:
    def write_two(write: FlatWriter, given: Given, out: Tensor) -> int:
        if given.get("rounding_mode"):
            raise Unwritable("it rounds")
        first, second = (_operand(write, given[key], out.ndim) for key in ("self", "other"))
        if (alpha := given.get("alpha", 1)) != 1:
            second = write.two("mul", second, write.number(alpha, second))
        return write.two(name, second, first) if swapped else write.two(name, first, second)

    return write_two


def _addcmul(write: FlatWriter, given: Given, out: Tensor) -> int:
    first, second, third = (_operand(write, given[key], out.ndim) for key in ("self", "tensor1", "tensor2"))
    product = write.two("mul", second, third)
    if given["value"] != 1:
        product = write.two("mul", product, write.number(given["value"], product))
    return write.two("add", first, product)


def _map(name: str, *numbers: str | float | None) -> Write:
    """A function of single values; its numbers are arguments of the operation, or given here."""

    def write_map(write: FlatWriter, given: Given, out: Tensor) -> int:
        x = value_of(given, "self" if "self" in given else "input")
        values = [given[each] if isinstance(each, str) else each for each in numbers]
        if any(isinstance(value, Tensor | Value) for value in values):
            raise Unwritable("its bounds are tensors")
        return write.map(name, x.step, *values)

    return write_map


def _gelu(write: FlatWriter, given: Given, out: Tensor) -> int:
    return write.map("gelu_tanh" if given["approximate"] == "tanh" else "gelu", value_of(given, "self").step)


def _prelu(write: FlatWriter, given: Given, out: Tensor) -> int:
    x, slope = value_of(given, "self"), weights_of(given, "weight")
    assert slope is not None
    negative = write.map("clamp", x.step, None, 0.0)
    sides = channel_sides(x) if slope.numel() > 1 else [1] * len(x.sides)
    scaled = write.two("mul", negative, write.constant(slope, sides))
    return write.two("add", write.map("clamp", x.step, 0.0, None), scaled)


def _axes(given: Given, x: Value) -> list[int]:
    """The axes of one image along which an operation goes, from the last."""
    dims = given["dim"]
    dims = [dims] if isinstance(dims, int) else list(dims or range(x.example.ndim))
    axes = sorted({dim % x.example.ndim for dim in dims}, reverse=True)
    if axes[-1] == 0:
        raise Unwritable("it puts the images of a batch together")
    return [axis - 1 for axis in axes]


def _reduce(name: str) -> Write:
    def write_reduce(write: FlatWriter, given: Given, out: Tensor) -> int:
        x = value_of(given, "self")
        step = x.step
        for axis in _axes(given, x):
            step = write.reduce(name, step, axis)
        return write.reshape(step, out.shape[1:])

    return write_reduce


def _log_sum_exp(write: FlatWriter, x: Value, axes: list[int]) -> int:
    if len(axes) != 1:
        raise Unwritable("it goes along several axes")
    highest = write.reduce("max", x.step, axes[0])
    odds = write.map("exp", write.two("sub", x.step, highest))
    return write.two("add", highest, write.map("log", write.reduce("sum", odds, axes[0])))


def _logsumexp(write: FlatWriter, given: Given, out: Tensor) -> int:
    x = value_of(given, "self")
    return write.reshape(_log_sum_exp(write, x, _axes(given, x)), out.shape[1:])


def _softmax(*, log: bool) -> Write:
    def write_softmax(write: FlatWriter, given: Given, out: Tensor) -> int:
        x = value_of(given, "self")
        logs = write.two("sub", x.step, _log_sum_exp(write, x, _axes(given, x)))
        return logs if log else write.map("exp", logs)

    return write_softmax


def _cat(write: FlatWriter, given: Given, out: Tensor) -> int:
    axis = given["dim"] % out.ndim
    if axis == 0:
        raise Unwritable("it puts the images of a batch together")
    parts = [_part(write, value) for value in given["tensors"]]
    return write.step("cat", parts, out.shape[1:], axis=axis - 1)


def _part(write: FlatWriter, value: Any) -> int:
    """The step of a part (N, …): a value, or a constant that is the same for both images."""
    if isinstance(value, Value):
        return value.step
    if not torch.equal(value[0], value[1]):
        raise Unwritable("it has other constants for each image of a batch")
    return write.constant(value[0], value.shape[1:])


def _stack(write: FlatWriter, given: Given, out: Tensor) -> int:
    axis = given["dim"] % out.ndim
    if axis == 0:
        raise Unwritable("it puts the images of a batch together")
    sides = list(out.shape[1:])
    sides[axis - 1] = 1
    parts = [write.reshape(_part(write, value), sides) for value in given["tensors"]]
    return write.step("cat", parts, out.shape[1:], axis=axis - 1)


def _move(write: FlatWriter, given: Given, out: Tensor) -> int:
    """What only moves values (flatten, permute, pad, slice, …): numbers in their place say where each
    value comes from."""
    x = next(value for value in given.values() if isinstance(value, Value))
    size, sides = x.example[0].numel(), x.sides
    places = given["call"](torch.arange(1.0, 2 * size + 1, dtype=torch.float64).view(2, *sides))
    first, second = (places[k].flatten() for k in (0, 1))
    alone = bool((first <= size).all()) and torch.equal(torch.where(first > 0, first + size, 0), second)
    if len(places) != 2 or not alone:
        raise Unwritable("it mixes the images of a batch")
    index = first.int() - 1
    if torch.equal(index, torch.arange(size, dtype=torch.int32)):
        return write.reshape(x.step, out.shape[1:])
    fill = given.get("value")
    return write.step("gather", [x.step], out.shape[1:], index=write.array(index), fill=fill or 0.0)


def _none(write: FlatWriter, given: Given, out: Tensor) -> int:
    """Dropout, a change of memory format, a copy: nothing in evaluation mode."""
    if given.get("train"):
        raise Unwritable("it is random, also in evaluation mode")
    return next(value for value in given.values() if isinstance(value, Value)).step


MOVES = (
    *("view", "reshape", "_unsafe_view", "flatten", "unflatten", "squeeze", "unsqueeze", "permute", "t"),
    *("transpose", "swapaxes", "movedim", "slice", "select", "narrow", "expand", "expand_as", "view_as"),
    *("constant_pad_nd", "pad", "pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "flip", "roll"),
    *("im2col", "repeat", "upsample_nearest2d", "split", "split_with_sizes", "chunk", "unbind"),
)
UNCHANGED = (
    *("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout", "contiguous", "clone"),
    *("alias", "detach", "to", "_to_copy", "lift_fresh_copy"),
)
AVERAGES = (
    *("avg_pool2d", "adaptive_avg_pool2d", "upsample_bilinear2d", "upsample_bicubic2d"),
    *("_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa"),
)
OPERATIONS: dict[str, Write] = {
    **dict.fromkeys(MOVES, _move),
    **dict.fromkeys(UNCHANGED, _none),
    **dict.fromkeys(AVERAGES, _separable),
    "conv2d": _conv,
    "linear": _linear,
    "addmm": _addmm,
    **dict.fromkeys(("matmul", "mm"), _matmul),
    "max_pool2d": _max_pool,
    "batch_norm": flat_norms.batch_norm,
    "group_norm": flat_norms.group_norm,
    "instance_norm": flat_norms.instance_norm,
    "layer_norm": flat_norms.layer_norm,
    "add": _two("add"),
    "sub": _two("sub"),
    "rsub": _two("sub", swapped=True),
    "mul": _two("mul"),
    "div": _two("div"),
    "maximum": _two("max"),
    "minimum": _two("min"),
    "addcmul": _addcmul,
    "relu": _map("clamp", 0.0, None),
    "relu6": _map("clamp", 0.0, 6.0),
    "hardtanh": _map("clamp", "min_val", "max_val"),
    "clamp": _map("clamp", "min", "max"),
    "clamp_min": _map("clamp", "min", None),
    "clamp_max": _map("clamp", None, "max"),
    "leaky_relu": _map("leaky", "negative_slope"),
    "prelu": _prelu,
    "elu": _map("elu", "alpha", "scale", "input_scale"),
    "selu": _map("elu", 1.6732632423543772, 1.0507009873554805, 1.0),
    "gelu": _gelu,
    "sigmoid": _map("sigmoid"),
    "tanh": _map("tanh"),
    "silu": _map("silu"),
    "hardswish": _map("hardswish"),
    "hardsigmoid": _map("hardsigmoid"),
    "softplus": _map("softplus", "beta", "threshold"),
    "exp": _map("exp"),
    "log": _map("log"),
    "abs": _map("abs"),
    "neg": _map("scale", -1.0),
    "sqrt": _map("power", 0.5),
    "rsqrt": _map("power", -0.5),
    "pow": _map("power", "exponent"),
    "mean": _reduce("mean"),
    "sum": _reduce("sum"),
    "amax": _reduce("max"),
    "logsumexp": _logsumexp,
    "softmax": _softmax(log=False),
    "log_softmax": _softmax(log=True),
    "cat": _cat,
    "stack": _stack,
}
KINDS = (
    "linear layers, convolution, ReLU and other functions of single values, pooling, normalisation, "
    "resizing, dropout, sums, products and concatenation"
)
"""What `OPERATIONS` come to, in words."""
