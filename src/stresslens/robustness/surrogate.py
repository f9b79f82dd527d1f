"""The surrogate of a transfer attack: whether another model can stand in for the attacked one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from stresslens.config.threat_model import ThreatModel, needs_gradient
from stresslens.core.attack_base import attacked
from stresslens.core.class_names import plain_form
from stresslens.core.data import Split
from stresslens.core.dtypes import as_input, device_of
from stresslens.core.errors import ConfigError, StresslensError, reworded
from stresslens.core.gradient_free import NoGradient, why_no_gradient
from stresslens.evaluation.inputs import check_inputs


def check_surrogate(threat: ThreatModel, surrogate: Any, model: nn.Module, images: Split) -> None:
    """Raises ConfigError or DataError if an attack needs a surrogate and there is none, or if the
    given one does not map these images to logits of the model's classes on the model's device. How
    often it is right is for the audit `surrogate`."""
    if surrogate is None:
        if threat.needs_surrogate:
            raise ConfigError(
                "the attack transfer needs a surrogate: another model for the same images "
                "(surrogate=…, or --surrogate RUN)"
            )
        return
    try:
        check_inputs(surrogate, images)
    except StresslensError as error:
        raise reworded(error, f"surrogate: {error}") from error
    places = [device_of(net) for net in (surrogate, model)]
    if places[0] != places[1]:
        raise ConfigError(
            f"surrogate: it is on {places[0]}, the attacked model on {places[1]}; move it there"
        )
    lending = [bound for bound in threat.through_surrogate if needs_gradient(bound)]
    if lending and (what := why_no_gradient(surrogate)):
        name = lending[0].function.__name__
        raise NoGradient(
            f"surrogate: it is {what} and has no gradient to lend, which {name} follows; give a model that "
            "was trained, or an attack without gradients: {transfer: {attack: square}}"
        )
    ours, theirs = (_classes(net, images) for net in (model, surrogate))
    if ours != theirs:
        raise ConfigError(f"surrogate: it has {theirs} classes, the attacked model {ours}")


def check_class_names(surrogate: Sequence[str], classes: Sequence[str], name: object) -> None:
    """Raises ConfigError if the classes of the run `name` are others than those of the data, or in
    another order: its gradients would drive images to other classes."""
    theirs, ours = ([plain_form(name) for name in names] for names in (surrogate, classes))
    if theirs == ours:
        return
    if sorted(theirs) == sorted(ours):
        raise ConfigError(f"surrogate: {name} has the same classes in another order; train it on this data")
    first = next((pair for pair in zip(surrogate, classes) if pair[0] != pair[1]), ("no class", "a class"))
    raise ConfigError(
        f"surrogate: {name} has other classes, {len(surrogate)} against {len(classes)}; "
        f"the first that differs is {first[0]!r}, here {first[1]!r}"
    )


def _classes(model: nn.Module, images: Split) -> int:
    with attacked(model), torch.no_grad():
        logits = model(as_input(images.floats(images.images[:2]), model))
    return int(logits.shape[1])
