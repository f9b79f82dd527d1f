"""Nets that end in a softmax or a sigmoid, though their outputs are used as logits."""

from __future__ import annotations

import warnings

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
VIEWS = ("ViewBackward", "ReshapeAliasBackward", "UnsafeViewBackward", "SqueezeBackward", "ToCopyBackward")


WITH_SOFTMAX = {
    "losses": ("cross_entropy", "torch.nn:CrossEntropyLoss", "torch.nn.functional:cross_entropy"),
    "objectives": ("trades", "contrastive"),
}
"""Losses and objectives that are known to compute a softmax of what the net returns."""


def told_findings(model: nn.Module, x: Tensor, objective: PluginValue) -> list[Note]:
    """As `ending_findings`, told in Notices too."""
    found = ending_findings(model, x, objective)
    for note in found:
        warnings.warn(note.message, Notice, stacklevel=2)
    return found


def ending_findings(model: nn.Module, x: Tensor, objective: PluginValue = "supervised") -> list[Note]:
    """A note if the outputs of a model for images x (N, C, H, W) are no logits, but the result of a softmax
    or a sigmoid. Logarithms of probabilities are logits. `objective` is what the model is trained with,
    with its loss (`config.validation.objective_of`)."""
    with unchanged(model), torch.enable_grad():
        try:
            outputs = logits_in(model.eval()(x), model)
        except Exception:  # a user's module may raise anything, which training will tell
            return []
    end = _end_of(outputs)
    if not end:
        return []
    if _has_softmax(objective):
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


def _has_softmax(objective: PluginValue) -> bool:
    name, options = registry.name_and_options("objectives", objective)
    if name in WITH_SOFTMAX["objectives"]:
        return True
    if name not in registry.names("objectives"):
        return False
    loss, _ = registry.name_and_options("losses", options.get("loss", "cross_entropy"))
    return loss in WITH_SOFTMAX["losses"]


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
