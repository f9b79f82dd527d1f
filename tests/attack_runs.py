"""An attack by its name on small nets, with few steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stresslens.config import registry
from stresslens.core.attack_base import attacked, unwatched
from stresslens.core.ball import Ball, Norm
from stresslens.core.draws import Draws
from stresslens.core.errors import ConfigError

every = pytest.mark.parametrize("name", registry.names("attacks"))
norms = pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
QUICK = {"steps": 6, "queries": 30, "searches": 2, "tries": 3, "starts": 16, "chains": 3}
RADII: dict[Norm, float] = {"linf": 0.1, "l2": 0.7, "l1": 3.0}


def net(shape: tuple[int, int, int], classes: int, dtype: torch.dtype = torch.float32) -> nn.Module:
    """A smooth net with batch norm, whose running statistics are its own, and dropout."""
    with torch.random.fork_rng():
        torch.manual_seed(len(shape) + classes)
        inside = nn.Sequential(
            nn.Conv2d(shape[0], 6, 3, padding=1), nn.BatchNorm2d(6), nn.Tanh(), nn.Flatten(), nn.Dropout(0.5)
        )
        model = nn.Sequential(*inside, nn.Linear(6 * shape[1] * shape[2], classes)).to(dtype)
        with torch.no_grad():
            for _ in range(3):
                model(torch.rand(64, *shape, dtype=dtype))
    return model


def linear(shape: tuple[int, int, int], classes: int, dtype: torch.dtype = torch.float64) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(classes)
        return nn.Sequential(nn.Flatten(), nn.Linear(shape[0] * shape[1] * shape[2], classes)).to(dtype)


def images(shape: tuple[int, int, int], n: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """In [0, 1], many of their pixels black or white."""
    drawn = torch.rand(n, *shape, generator=torch.Generator().manual_seed(n), dtype=dtype)
    return (1.6 * drawn - 0.3).clamp(0, 1)


def answers(model: nn.Module, x: Tensor) -> Tensor:
    with attacked(model), torch.no_grad():
        return model(x)


def run(
    name: str,
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    ball: Ball,
    *,
    watch: Any = unwatched,
    target: Any = None,
    index: Any = None,
    surrogate: Any = None,
    options: Mapping[str, int] = QUICK,
) -> Tensor:
    """The attack with few steps; skips where it says that it does not know the norm."""
    function = registry.plugin("attacks", name)
    options = {option: value for option, value in options.items() if option in registry.options_of(function)}
    draws = Draws(3, torch.arange(len(x)) if index is None else index)
    try:
        with attacked(model):
            result: Tensor = registry.resolve("attacks", {name: options})(
                model=model,
                x=x,
                y=y,
                ball=ball,
                draws=draws,
                watch=watch,
                target=target,
                surrogate=surrogate or model,
            )
    except ConfigError as error:
        if f"not of {ball.norm}" not in str(error):
            raise
        pytest.skip(f"{name} does not know {ball.norm}")
    return result
