"""Shared by the optimizers of other libraries: their options checked, what is not decayed, and a step
tried before anything is trained."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any, Literal

import torch
from torch import nn

from stresslens.core.errors import ConfigError, first_line
from stresslens.core.spelling import unknown_key
from stresslens.core.types import Parameters

Decayed = Literal["weights", "all"]
"""What weight decay acts on: `weights` leaves out biases, norms and what the net itself names."""
GIVEN = ("params", "lr", "weight_decay")
"""Parameters of an optimizer that are no entries of `options`."""


@contextmanager
def in_words(what: str, options: Mapping[str, Any] | None) -> Iterator[None]:
    """Raises ConfigError where the library refuses the optimizer `what`, its `options` or its
    parameters."""
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:  # a library may raise anything
        given = "".join(f" {name}={value}" for name, value in (options or {}).items())
        given = given and f" with{given}"
        raise ConfigError(f"{what} cannot be used here{given}: {first_line(error)}") from None


def checked(options: Mapping[str, Any] | None, known: Callable[..., Any], what: str) -> dict[str, Any]:
    """The options as keywords of the class `known`; raises ConfigError for one that it does not have."""
    valid = [name for name in inspect.signature(known).parameters if name not in (*GIVEN, "kwargs")]
    for option in options or {}:
        if option in GIVEN[1:]:
            raise ConfigError(f"{option} is no entry of `options`; give it beside them")
        if option not in valid:
            raise ConfigError(unknown_key(option, valid, f"{what} has no option {option!r}"))
    return {name: tuple(v) if isinstance(v, list) else v for name, v in (options or {}).items()}


def made(
    make: Callable[..., torch.optim.Optimizer], groups: list[dict[str, Any]], **settings: Any
) -> torch.optim.Optimizer:
    """What `make` returns for the groups, after a step of another one with two small parameters: some
    optimizers refuse their options, or what they are given, in their first step only."""
    small = small_parameters()
    for parameter in small:
        parameter.grad = torch.ones_like(parameter)
    make(small, **settings).step()
    return make(groups, **settings)


def small_parameters() -> list[nn.Parameter]:
    """A parameter on which an optimizer is tried."""
    return [nn.Parameter(torch.ones(2, 2))]


def with_decay(
    parameters: Parameters, weight_decay: float, decay: Decayed, net: nn.Module | None
) -> list[dict[str, Any]]:
    """Groups of the parameters, each with its `weight_decay`.

    With `weights` it is 0 for parameters of one dimension (biases, and the weights of norms), for those
    called `bias`, and for those that the net's method `no_weight_decay` names, which may be patterns
    (`pos_embed.*`), as timm's `param_groups_weight_decay` has it.
    """
    groups: list[Any] = list(parameters)
    if not all(isinstance(group, Mapping) for group in groups):
        groups = [{"params": groups}]
    if decay == "all" or not weight_decay:
        return [{**group, "weight_decay": weight_decay} for group in groups]
    named = dict(net.named_parameters()) if net is not None else {}
    own: Collection[str] = getattr(net, "no_weight_decay", list)()
    patterns = [*own, "*.bias"]
    spared = {id(p) for name, p in named.items() if any(fnmatchcase(name, each) for each in patterns)}
    split = []
    for group in groups:
        for share in (0.0, weight_decay):
            members = [p for p in group["params"] if (p.ndim <= 1 or id(p) in spared) == (share == 0)]
            split += [{**group, "params": members, "weight_decay": share}] if members else []
    return split
