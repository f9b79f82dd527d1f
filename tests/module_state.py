"""What a user can see of an awkward module before and after it was used, and images for it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from awkward_modules import build
from forward_passes import CLASSES, SHAPE
from torch import Tensor, nn

from stresslens.core.data import Data
from stresslens.core.errors import Notice
from stresslens.core.inspection import to_evaluation_mode


def images(n: int = 6, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(n, *SHAPE, generator=torch.Generator().manual_seed(5), dtype=torch.float64).to(dtype)


def dtype_of(model: nn.Module) -> torch.dtype:
    return next((p.dtype for p in model.parameters()), torch.float32)


def evaluated(name: str) -> nn.Module:
    model = build(name)
    to_evaluation_mode(model)
    return model


def data(n: int = 36) -> Data:
    x, y = images(n), torch.arange(n) % CLASSES
    return Data.from_arrays(x, y, classes=list("abc"), validation=0.25, test=0.25)


def state(model: nn.Module) -> list[Any]:
    """What a user can see of a module: tensors, modes, hooks, requires_grad, classes."""
    tensors = {name: value.clone() for name, value in model.state_dict().items()}
    hooks = [
        [list(getattr(m, kind)) for kind in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")]
        for m in model.modules()
    ]
    return [
        tensors,
        [(type(m), m.training, "forward" in vars(m)) for m in model.modules()],
        hooks,
        [p.requires_grad for p in model.parameters()],
    ]


def same(before: list[Any], after: list[Any]) -> bool:
    tensors, others = before[0], after[0]
    return (
        before[1:] == after[1:]
        and tensors.keys() == others.keys()
        and all(torch.equal(tensors[name], others[name]) for name in tensors)
    )


@contextmanager
def with_notices() -> Iterator[None]:
    with warnings.catch_warnings():
        for category in (Notice, DeprecationWarning):
            warnings.simplefilter("ignore", category)
        yield
