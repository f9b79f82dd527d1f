"""What a model plug-in and its options say of its initial weights, and of the preprocessing that belongs to
them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stresslens.config import registry
from stresslens.core.pretrained import WeightsRef


def initial_weights(
    value: Any, *, base: Path | None = None, trust: bool = True
) -> WeightsRef | registry.Bound | None:
    """The source of a model's initial weights: another run or a file (WeightsRef), or the function
    `published` in the model's own file, bound to its options. None where there is neither."""
    function, checked = registry.function_and_options("models", value, (), base, trust)
    if isinstance(checked.get("weights"), WeightsRef):
        origin: WeightsRef = checked["weights"]
        return origin
    publish = registry.beside(function, "published")
    return registry.bind("models", publish, checked) if publish is not None else None


def default_preprocessing(
    value: Any, *, base: Path | None = None, trust: bool = True
) -> registry.Bound | None:
    """The preprocessing of the pretrained weights that are usually published for a model: the
    function `default_preprocessing` in its file (in version 0.1.0 `usual`). None without one."""
    function, checked = registry.function_and_options("models", value, (), base, trust)
    preprocessing = registry.beside(function, "default_preprocessing") or registry.beside(function, "usual")
    return registry.bind("models", preprocessing, checked) if preprocessing is not None else None
