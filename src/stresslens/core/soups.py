"""Model soups: one net whose weights are the mean of those of several nets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from stresslens.core.copies import copied
from stresslens.core.weights_file import load_state

Choice = Literal["all", "greedy"]


def averaged(models: Sequence[nn.Module]) -> nn.Module:
    """A copy of the first of some models of one architecture, with the mean of all their weights and
    buffers (model soups: Wortsman et al. 2022), computed in float64.

    Integers, such as counts of batches, are those of the first. Raises ValueError where the tensors differ in
    name or shape.
    """
    first, *others = [model.state_dict() for model in models]
    for other in others:
        if what := first_difference(first, other):
            raise ValueError(f"the weights of different nets have no mean: {what}")
    soup = copied(models[0])
    load_state(soup, {name: _mean([state[name] for state in (first, *others)]) for name in first})
    return soup


def _mean(values: Sequence[Any]) -> Any:
    first = values[0]
    if not isinstance(first, Tensor) or not (first.is_floating_point() or first.is_complex()):
        return first
    wide = torch.complex128 if first.is_complex() else torch.float64
    total = torch.zeros_like(first, dtype=wide)
    for value in values:
        total += value.to(total)
    return (total / len(values)).to(first.dtype)


def first_difference(first: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """The first tensor whose name or shape differs between two nets, in words; empty where all are alike."""
    for name in [*first, *other]:
        shapes = [_shape(state, name) for state in (first, other)]
        if shapes[0] != shapes[1]:
            return f"{name} is {shapes[0]} in the first and {shapes[1]} in the other"
    return ""


def _shape(state: Mapping[str, Any], name: str) -> str:
    if name not in state:
        return "missing"
    return "×".join(map(str, getattr(state[name], "shape", ()))) or "a single number"
