"""Time of passes through a model, told before long work. It decides nothing."""

from __future__ import annotations

import time

import torch
from torch import Tensor, nn

from stresslens.core.attack_base import attacked
from stresslens.core.dtypes import as_input
from stresslens.core.layer_table import multiply_adds_of
from stresslens.core.progress import foretell

SHORT = 2e11
"""Work of fewer multiply-adds ends within seconds, and is not timed."""
TIMED, SECONDS = 10, 2.0
"""A pass is timed so often, at most, and no further pass is begun after so many seconds: other work
on the machine can hold up single passes for many times their length."""


def foretell_passes(what: str, model: nn.Module, x: Tensor, passes: float, quicker: str) -> None:
    """Says about how long `passes` forward passes of single images take, and what is quicker; timed
    on images x (n, C, H, W)."""
    if passes * multiply_adds_of(model, (x.shape[1], x.shape[2], x.shape[3])) > SHORT:
        foretell(what, passes * _seconds_of_pass(model, x), quicker)


def _seconds_of_pass(model: nn.Module, x: Tensor) -> float:
    """Seconds of a forward pass for each of the images, from the fastest of at least two."""
    taken: list[float] = []
    x = as_input(x, model)
    with attacked(model), torch.no_grad():
        while len(taken) < 2 or (len(taken) < TIMED and sum(taken) < SECONDS):
            began = time.perf_counter()
            model(x)
            if x.is_cuda:
                torch.cuda.synchronize()
            taken.append(time.perf_counter() - began)
    return min(taken) / len(x)
