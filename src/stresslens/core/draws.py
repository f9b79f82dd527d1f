"""Counter-based random numbers for each image (SplitMix64).

An image gets the same numbers whatever the batch size, the order, or which images were dropped.
"""

from __future__ import annotations

import math
import operator
from contextlib import suppress
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from stresslens.core.errors import ConfigError

# SplitMix64 (Steele, Lea & Flood 2014, "Fast splittable pseudorandom number generators"), in
# wrapping int64 arithmetic.
_GOLDEN = 0x9E3779B97F4A7C15
_MIX = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
_MASK = (1 << 64) - 1


def seed_number(given: Any) -> int:
    """A seed as a user gives it, as int; it may be a number of numpy. Raises ConfigError for others."""
    with suppress(TypeError):  # of what is no whole number
        if not isinstance(given, bool) and 0 <= operator.index(given) < 2**32:
            return operator.index(given)
    raise ConfigError(f"seed {given!r}: expected a whole number from 0 up")


def _signed(value: int) -> int:
    value &= _MASK
    return value - (1 << 64) if value >> 63 else value


def _shift(z: Tensor, bits: int) -> Tensor:
    return (z >> bits) & ((1 << (64 - bits)) - 1)  # >> on int64 copies the sign; the mask makes it logical


def _mixed(z: Tensor) -> Tensor:
    z = (z ^ _shift(z, 30)) * _signed(_MIX[0])
    z = (z ^ _shift(z, 27)) * _signed(_MIX[1])
    return z ^ _shift(z, 31)


def mix(*values: int) -> int:
    """One seed in [0, 2⁶³) from several integers; neighbouring inputs give unrelated seeds."""
    state = 0
    for value in values:
        state = (state * 31 + value + _GOLDEN) & _MASK
        state = ((state ^ (state >> 30)) * _MIX[0]) & _MASK
        state = ((state ^ (state >> 27)) * _MIX[1]) & _MASK
        state ^= state >> 31
    return state >> 1


def _below(value: float) -> float:
    return float(torch.nextafter(torch.tensor(value), torch.tensor(-math.inf)))


class Draws:
    """A stream of random numbers for each image of a batch.

    `index` (N,) int64 identifies the images. Every call advances all streams together, so the same
    sequence of calls gives an image the same numbers in any batch. `select` keeps some of the
    images, at the same position of their streams.
    """

    def __init__(self, seed: int, index: Tensor, *, position: int = 0) -> None:
        self.seed, self.index, self.position = seed, index, position

    @cached_property
    def _start(self) -> Tensor:
        return _mixed(self.index * _signed(_GOLDEN) + _signed(mix(self.seed)))

    def _bits(self, shape: tuple[int, ...]) -> Tensor:
        count = math.prod(shape)
        steps = torch.arange(self.position + 1, self.position + count + 1, device=self.index.device)
        self.position += count
        return _mixed(self._start[:, None] + steps * _signed(_GOLDEN)).reshape(len(self.index), *shape)

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """`(N, *shape)` float32, uniform on [low, high)."""
        share = _shift(self._bits(shape), 40).to(torch.float32) * 2.0**-24
        return share if (low, high) == (0.0, 1.0) else (share * (high - low) + low).clamp_max(_below(high))

    def normal(self, *shape: int) -> Tensor:
        """`(N, *shape)` float32, standard normal (Box and Muller 1958)."""
        first, second = self.uniform(*shape), self.uniform(*shape)
        return torch.sqrt(-2 * torch.log1p(-first)) * torch.cos(2 * math.pi * second)

    def integers(self, high: int, *shape: int) -> Tensor:
        """`(N, *shape)` int64, uniform on 0 … high - 1."""
        return _shift(self._bits(shape), 1) % high

    def select(self, keep: Tensor) -> Draws:
        """The streams of the images `keep`, a mask or positions in the batch."""
        return Draws(self.seed, self.index[keep], position=self.position)

    def fork(self, *values: int) -> Draws:
        """New streams for the same images, from their beginning; `values` select which."""
        return Draws(mix(self.seed, *values), self.index)
