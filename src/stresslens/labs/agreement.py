"""Findings on whether two tensors are equal up to rounding."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from stresslens.core.types import Finding

WITHIN = 1e-6
"""Values are equal if they differ by at most this share of the reference's largest value."""


def equal(name: str, evidence: str, n: int) -> Finding:
    return Finding(name, "no sign", "none", evidence, n)


def differs(name: str, evidence: str, n: int, remedy: str = "", items: Sequence[str] = ()) -> Finding:
    return Finding(name, "sign", "serious", evidence, n, remedy, tuple(items))


def verdict(name: str, wrong: Sequence[str], right: str, n: int, remedy: str = "") -> Finding:
    """The finding on `n` cases, of which those in `wrong` differ; `right` is the evidence without any."""
    return differs(name, wrong[0], n, remedy, wrong[1:]) if wrong else equal(name, right, n)


def remark(name: str, evidence: str, n: int, remedy: str = "") -> Finding:
    """A finding that is no mistake."""
    return Finding(name, "sign", "minor", evidence, n, remedy)


def unlike(found: object, expected: Tensor, within: float = WITHIN) -> str | None:
    """How a value differs from the reference's tensor, in words; None if they are equal."""
    if not isinstance(found, Tensor):
        return f"it is of type {type(found).__name__}; expected a tensor"
    if found.shape != expected.shape:
        return f"its shape is {_shape(found)}; expected {_shape(expected)}"
    ours, theirs = found.detach().to("cpu", torch.float64), expected.detach().to("cpu", torch.float64)
    if not ours.isfinite().all():
        return f"{int((~ours.isfinite()).sum())} of its {ours.numel()} values are not finite"
    largest = float(theirs.abs().max()) if theirs.numel() else 0.0
    apart = float((ours - theirs).abs().max()) if theirs.numel() else 0.0
    if apart <= within * (largest or 1.0):
        return None
    return (
        f"the largest difference is {apart:.3g} (values up to {largest:.3g}){_factor(ours, theirs, within)}"
    )


def _factor(ours: Tensor, theirs: Tensor, within: float) -> str:
    """A constant factor between the two, where there is one."""
    square = float(theirs.square().sum())
    if not square or theirs.numel() < 2:
        return ""
    factor = float((ours * theirs).sum()) / square
    if not factor or float((ours - factor * theirs).abs().max()) > within * float(theirs.abs().max()):
        return ""
    inverse = f" (1/{1 / factor:.4g})" if abs(factor) < 1 else ""
    return f"; it is {factor:.4g} times the reference{inverse}"


def _shape(tensor: Tensor) -> str:
    return f"({', '.join(map(str, tensor.shape))})"
