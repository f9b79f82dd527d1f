from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

from stresslens.core.errors import ConfigError
from stresslens.core.extras import extra
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

EXTRA = "timm"


def timm(
    parameters: Parameters,
    lr: float,
    net: nn.Module | None,
    *,
    name: str,
    weight_decay: NonNegative = 0.0,
    decay: Decayed = "weights",
    options: dict[str, Any] | None = None,
) -> torch.optim.Optimizer:
    """An optimizer of timm by its `name` there: lion, lamb, adamp, nadamw, muon, …

    `options` are those of the optimizer (betas, momentum, …), with timm's defaults. `decay: weights` is
    timm's rule: weight decay spares biases, norms, and parameters that the net names
    (`no_weight_decay`); `all` decays every parameter. Raises ConfigError for an unknown name or option,
    and for an optimizer that needs second derivatives, or a package or GPU that is not there.
    """
    with extra("timm", "the optimizer timm"):
        from timm import optim
    library: Any = optim
    if name not in (known := library.list_optimizers()):
        raise ConfigError(f"timm has no optimizer called {name!r}; {closest(name, known)}")
    if library.get_optimizer_info(name).second_order:
        raise ConfigError(f"timm's optimizer {name} needs second derivatives, which training does not keep")
    what = f"timm's optimizer {name}"
    with in_words(what, options):
        of_class = library.get_optimizer_class(name, bind_defaults=False)
        settings = checked(options, of_class, what)
        groups = with_decay(parameters, weight_decay, decay, net)
        return made(library.create_optimizer_v2, groups, opt=name, lr=lr, **settings)


def check_options(**options: Any) -> None:
    """Raises ConfigError for a name or options that timm refuses, where it is installed."""
    if find_spec("timm") is not None:
        timm(small_parameters(), 1e-3, None, **options)
