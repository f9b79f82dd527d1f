"""Collects the steps of a flat graph (`evaluation/flat_graph.py`) and their numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor


class Unwritable(Exception):
    """An operation cannot be written; the message says what is in the way."""


class Value(NamedTuple):
    """What a step computes: its number, and its values (2, …) for an example of two images."""

    step: int
    example: Tensor

    @property
    def sides(self) -> list[int]:
        return list(self.example.shape[1:])


class FlatWriter:
    """Collects steps, and the numbers that they need in one block of 4-byte words."""

    def __init__(self) -> None:
        self.steps: list[dict[str, Any]] = []
        self.blocks: list[bytes] = []
        self.words = 0
        self._places: dict[bytes, list[int]] = {}

    def array(self, values: Tensor) -> list[int]:
        """The place of float32 or int32 numbers in the block: first word and number of words."""
        kind = np.dtype("<f4") if values.is_floating_point() else np.dtype("<i4")
        content = values.detach().cpu().contiguous().numpy().astype(kind).tobytes()
        if content not in self._places:
            self._places[content] = [self.words, values.numel()]
            self.blocks.append(content)
            self.words += values.numel()
        return self._places[content]

    def step(self, kind: str, of: Sequence[int], sides: Sequence[int], **options: Any) -> int:
        """The number of a new step, which computes values (*sides) of those of the steps `of`."""
        given = {name: value for name, value in options.items() if value is not None}
        self.steps.append({"kind": kind, "of": list(of), "sides": [int(side) for side in sides], **given})
        return len(self.steps) - 1

    def constant(self, values: Tensor, sides: Sequence[int]) -> int:
        return self.step("constant", [], sides, values=self.array(values.float()))

    def map(self, name: str, x: int, *numbers: float | None) -> int:
        """A function of each value on its own."""
        return self.step("map", [x], self.steps[x]["sides"], name=name, numbers=list(numbers))

    def two(self, name: str, a: int, b: int) -> int:
        """A function of two values; sides of 1 are repeated."""
        sides = np.broadcast_shapes(self.steps[a]["sides"], self.steps[b]["sides"])
        return self.step("two", [a, b], sides, name=name)

    def number(self, value: float, like: int) -> int:
        """A single number, to be combined with the values of a step."""
        return self.constant(torch.tensor([float(value)]), [1] * len(self.steps[like]["sides"]))

    def reduce(self, name: str, x: int, axis: int) -> int:
        """The mean, sum or maximum along an axis, which stays with one value."""
        sides = list(self.steps[x]["sides"])
        sides[axis] = 1
        return self.step("reduce", [x], sides, name=name, axis=axis)

    def reshape(self, x: int, sides: Sequence[int]) -> int:
        if self.steps[x]["sides"] == list(sides):
            return x
        return self.step("gather", [x], sides)


Given = Mapping[str, Any]
"""The arguments of an operation by name: `Value`, Tensor, numbers."""


def value_of(given: Given, name: str) -> Value:
    """An argument that depends on the image. Raises Unwritable for a constant."""
    found = given[name]
    if not isinstance(found, Value):
        raise Unwritable(f"its {name} does not depend on the image")
    return found


def weights_of(given: Given, name: str) -> Tensor | None:
    """An argument that is a constant, or left out. Raises Unwritable for one that depends on the image."""
    found = given[name]
    if isinstance(found, Value):
        raise Unwritable(f"its {name} depends on the image")
    assert found is None or isinstance(found, Tensor)
    return found


def channel_sides(x: Value) -> list[int]:
    """The sides of a weight for each channel, for x (C, …)."""
    return [x.sides[0], *[1] * (len(x.sides) - 1)]
