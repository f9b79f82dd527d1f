"""Shared by optimizers: whether torch's fused update, the fastest one, takes the parameters."""

from __future__ import annotations

from torch import nn

from stresslens.core.types import Parameters


def fused(parameters: Parameters) -> bool:
    """False where a parameter is complex, which no fused update of torch takes."""
    groups = ([each] if isinstance(each, nn.Parameter) else each["params"] for each in parameters)
    return not any(parameter.is_complex() for group in groups for parameter in group)
