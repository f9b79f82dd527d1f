from __future__ import annotations

import inspect
from functools import partial
from typing import Any

from torch import nn, optim

from stresslens.core.errors import ConfigError
from stresslens.core.spelling import closest
from stresslens.core.types import NonNegative, Parameters
from stresslens.plugins.optimizers._library import (
    Decayed,
    checked,
    in_words,
    made,
    small_parameters,
    with_decay,
)

UNSUITABLE = {
    "LBFGS": "computes the loss several times in a step (a closure)",
    "SparseAdam": "takes sparse gradients only",
}
"""What training cannot give to an optimizer."""


def torch(
    parameters: Parameters,
    lr: float,
    net: nn.Module | None,
    *,
    name: str,
    weight_decay: NonNegative | None = None,
    decay: Decayed = "all",
    options: dict[str, Any] | None = None,
) -> optim.Optimizer:
    """An optimizer of torch.optim by its `name` there: NAdam, RAdam, Adagrad, Adafactor, …

    `options` are those of the class (betas, momentum, …), with torch's defaults, as `weight_decay` has.
    `decay: all` decays every parameter, as torch does; `weights` spares biases, norms, and parameters
    that the net names (`no_weight_decay`). Raises ConfigError for an unknown name or option, and for an
    optimizer that training by batches cannot drive.
    """
    known = [
        each
        for each, kind in vars(optim).items()
        if inspect.isclass(kind) and issubclass(kind, optim.Optimizer) and kind is not optim.Optimizer
    ]
    if name not in known:
        raise ConfigError(f"torch.optim has no optimizer called {name!r}; {closest(name, known)}")
    what, kind = f"torch's optimizer {name}", getattr(optim, name)
    if name in UNSUITABLE:
        raise ConfigError(f"{what} {UNSUITABLE[name]}, which training by batches does not; take another")
    declared = inspect.signature(kind).parameters
    own = declared["weight_decay"].default if "weight_decay" in declared else None
    if own is None and (weight_decay is not None or decay == "weights"):
        raise ConfigError(f"{what} has no weight decay; leave weight_decay and decay out")
    groups: list[Any] = list(parameters)
    if own is not None:
        groups = with_decay(parameters, own if weight_decay is None else weight_decay, decay, net)
    with in_words(what, options):
        return made(partial(kind, lr=lr, **checked(options, kind, what)), groups)


def check_options(**options: Any) -> None:
    """Raises ConfigError for a name or options that torch refuses."""
    torch(small_parameters(), 1e-3, None, **options)
