"""Detection of catastrophic overfitting: accuracy under the training attack and a stronger one."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from stresslens.core.answers import predicted
from stresslens.core.attack_base import batched_mean_logits, unwatched
from stresslens.core.ball import Ball
from stresslens.core.types import Attack, Step

GUARD = {"pgd": {"steps": 5}}
"""The stronger attack: steps of half a radius, from a random start."""
GUARDED = 128
"""Number of images that are checked, once an epoch."""


def guarded(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    own: Callable[[], Tensor],
    step: Step,
    *,
    ball: Ball,
    guard: Attack,
) -> None:
    """Once an epoch, reports the accuracy under the training's attack and under the guard.

    Both attack the first `GUARDED` images of the last batch but one (a complete batch), or of the
    only batch. `own` returns the images of the training's attack. The model must be frozen.
    """
    if step.batch != max(0, step.batches - 2):
        return
    x, y = x[:GUARDED], y[:GUARDED]
    draws = step.draws.fork(2).select(torch.arange(len(x), device=x.device))
    guard_images = guard(model=model, x=x, y=y, ball=ball, draws=draws, watch=unwatched)
    of_own, of_guard = (
        float((predicted(batched_mean_logits(model, images)) == y).double().mean())
        for images in (own(), guard_images)
    )
    step.report(attack_accuracy=of_own, guard_accuracy=of_guard, guarded=len(x), radius=float(ball.eps))


def hard(y: Tensor) -> Tensor:
    """(N,) labels; of mixed labels (N, K) the class with the largest weight."""
    return y if y.ndim == 1 else y.argmax(1)
