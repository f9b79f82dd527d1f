"""Normalisation layers as steps of a flat graph: each block of values by its own mean and variance, or by
those that batch norm learned, and then by weights."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from stresslens.evaluation.flat_writer import (
    FlatWriter,
    Given,
    Unwritable,
    Value,
    channel_sides,
    value_of,
    weights_of,
)


def _normalised(write: FlatWriter, x: Value, blocks: int, eps: float) -> int:
    """Each of so many blocks of values with mean 0 and variance 1."""
    flat = write.reshape(x.step, [blocks, x.example[0].numel() // blocks])
    centred = write.two("sub", flat, write.reduce("mean", flat, 1))
    variance = write.reduce("mean", write.two("mul", centred, centred), 1)
    factor = write.map("power", write.two("add", variance, write.number(eps, variance)), -0.5)
    return write.reshape(write.two("mul", centred, factor), x.sides)


def _scaled(write: FlatWriter, x: int, weight: Tensor | None, bias: Tensor | None, sides: list[int]) -> int:
    """x · weight + bias, both of these sides."""
    x = x if weight is None else write.two("mul", x, write.constant(weight, sides))
    return x if bias is None else write.two("add", x, write.constant(bias, sides))


def batch_norm(write: FlatWriter, given: Given, out: Tensor) -> int:
    x, training = value_of(given, "input"), given.get("training", False)
    mean, variance = weights_of(given, "running_mean"), weights_of(given, "running_var")
    if training or mean is None or variance is None:
        raise Unwritable("it normalises by the batch itself, also in evaluation mode")
    weight, bias = weights_of(given, "weight"), weights_of(given, "bias")
    gain = (1.0 if weight is None else weight.double()) / (variance.double() + given["eps"]).sqrt()
    shift = (0.0 if bias is None else bias.double()) - mean.double() * gain
    return _scaled(write, x.step, gain, shift, channel_sides(x))


def group_norm(write: FlatWriter, given: Given, out: Tensor) -> int:
    x = value_of(given, "input")
    normal = _normalised(write, x, given["num_groups"], given["eps"])
    return _scaled(write, normal, weights_of(given, "weight"), weights_of(given, "bias"), channel_sides(x))


def instance_norm(write: FlatWriter, given: Given, out: Tensor) -> int:
    x = value_of(given, "input")
    if not given["use_input_stats"]:
        return batch_norm(write, given, out)
    normal = _normalised(write, x, x.sides[0], given["eps"])
    return _scaled(write, normal, weights_of(given, "weight"), weights_of(given, "bias"), channel_sides(x))


def layer_norm(write: FlatWriter, given: Given, out: Tensor) -> int:
    x, last = value_of(given, "input"), len(given["normalized_shape"])
    blocks = int(np.prod(x.sides[: len(x.sides) - last], dtype=int))
    sides = [1] * (len(x.sides) - last) + x.sides[len(x.sides) - last :]
    normal = _normalised(write, x, blocks, given["eps"])
    return _scaled(write, normal, weights_of(given, "weight"), weights_of(given, "bias"), sides)
