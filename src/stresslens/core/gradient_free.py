"""Models that pass no gradient back to their images: estimators, graphs of other software, servers.

A module says so by an attribute `no_gradient`, which says in words what it is ("an ONNX graph"). Its
answers can be attacked by attacks that only ask for answers, corrupted, and explained by covering parts
of an image. A module without the attribute is taken to have a gradient, and the audit `gradient exists`
says where that is zero or missing.
"""

from __future__ import annotations

from torch import nn

from stresslens.core.errors import ConfigError


class NoGradient(ConfigError):
    """A gradient was asked of a model that has none."""


def why_no_gradient(model: nn.Module) -> str:
    """What a model without a gradient is, in words ("an estimator"); empty for any other model."""
    parts = (getattr(part, "no_gradient", "") for part in model.modules())
    return next((what for what in parts if isinstance(what, str) and what), "")


def require_gradient(model: nn.Module) -> None:
    """Raises NoGradient for a model that says that it has no gradient."""
    if what := why_no_gradient(model):
        raise NoGradient(f"the model has no gradient: it is {what}")
