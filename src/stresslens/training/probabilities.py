"""Nets that end in a softmax or a sigmoid, though their outputs are used as logits."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stresslens.config import registry
from stresslens.config.schema import PluginValue
from stresslens.core.copies import unchanged
from stresslens.core.errors import Notice
from stresslens.core.outputs import logits_in
from stresslens.evaluation.record import Note

KIND = "probabilities"
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-5}
ROUGH = 2e-2
"""How far rows of probabilities in half precision may be from a sum of 1."""
NAMED = ("__module__", "__qualname__")
VIEWS = ("ViewBackward", "ReshapeAliasBackward", "UnsafeViewBackward", "SqueezeBackward", "ToCopyBackward")


def told_findings(model: nn.Module, x: Tensor, objective: PluginValue, base: Path) -> list[Note]:
    """As `ending_findings`, told in Notices too."""
    found = ending_findings(model, x, objective, base)
    for note in found:
        warnings.warn(note.message, Notice, stacklevel=2)
    return found


def ending_findings(
    model: nn.Module, x: Tensor, objective: PluginValue = "supervised", base: Path | None = None
) -> list[Note]:
    """A note if the outputs of a model for images x (N, C, H, W) are no logits, but the result of a softmax
    or a sigmoid. Logarithms of probabilities are logits. `objective` is what the model is trained with,
    with its loss (`config.validation.objective_of`); its own files are relative to `base`."""
    with unchanged(model), torch.enable_grad():
        try:
            outputs = logits_in(model.eval()(x), model)
        except Exception:  # a user's module may raise anything, which training will tell
            return []
    end = _end_of(outputs)
    if not end:
        return []
    if _has_softmax(registry.resolve("objectives", objective, base=base)):
        message = (
            f"the net ends in a {end}; the loss expects logits and has a softmax of its own, so gradients "
            "are small, training is slow, and the probabilities are too even. Remove the "
            f"{end} from the net"
        )
    else:
        message = (
            f"the net ends in a {end}; a run's probabilities are the softmax of what the net returns, so "
            f"they are too even, and attacks find small gradients. Remove the {end} from the net; a loss "
            f"that needs the {end} can compute it, as torch.nn:BCEWithLogitsLoss does"
        )
    return [Note(kind=KIND, message=message)]


def _has_softmax(plugin: Any) -> bool:
    """Whether an objective, or else its loss, computes a softmax of what the net returns."""
    if not isinstance(plugin, registry.Bound):
        return False
    is_torchs = all(getattr(plugin.function, of) == getattr(nn.CrossEntropyLoss, of) for of in NAMED)
    if is_torchs or plugin.answer_beside("has_softmax"):
        return True
    return _has_softmax(plugin.options.get("loss"))


def _end_of(outputs: Tensor) -> str:
    """The function that outputs (N, K) come from: softmax, sigmoid or neither."""
    y = outputs.detach()
    if y.shape[1] < 2 or not bool(((y >= 0) & (y <= 1)).all()):
        return ""
    tolerance = TOLERANCE.get(y.dtype, ROUGH)
    if bool(((y.double().sum(1) - 1).abs() <= tolerance).all()):
        return "softmax"
    node = outputs.grad_fn
    while node is not None and node.name().rstrip("0123456789") in VIEWS and node.next_functions:
        node = node.next_functions[0][0]
    return "sigmoid" if node is not None and node.name().startswith("SigmoidBackward") else ""
