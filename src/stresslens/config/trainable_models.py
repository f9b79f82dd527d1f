"""Which models can be trained."""

from __future__ import annotations

from stresslens.config import registry


def is_trainable(model: registry.Plugin) -> bool:
    """Whether a model can be trained: unless its file has a function `trainable` that says no."""
    asked = registry.beside(model, "trainable")
    return asked is None or bool(asked())
