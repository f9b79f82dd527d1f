"""The watch against catastrophic overfitting: does the attack that a model is trained on still
stand for the ball?"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from stresslens.core.attack_base import batched_mean_logits, unwatched
from stresslens.core.ball import Ball
from stresslens.core.types import Attack, Step

GUARD = {"pgd": {"steps": 5}}
"""Half a radius a step, from a random start."""
GUARDED = 128
"""How many images of one batch an epoch are looked at."""


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
    """Once an epoch, at its last batch but one (a whole one) or the only one: reports the accuracy
    on the images that `own`, the training's attack, makes of the first `GUARDED`, and on those that
    the guard makes of them. The model is held still."""
    if step.batch != max(0, step.batches - 2):
        return
    x, y = x[:GUARDED], y[:GUARDED]
    draws = step.draws.fork(2).select(torch.arange(len(x), device=x.device))
    found = guard(model=model, x=x, y=y, ball=ball, draws=draws, watch=unwatched)
    of_own, of_guard = (
        float((batched_mean_logits(model, images).argmax(1) == y).double().mean())
        for images in (own(), found)
    )
    step.report(attack_accuracy=of_own, guard_accuracy=of_guard, guarded=len(x), radius=float(ball.eps))


def hard(y: Tensor) -> Tensor:
    """(N,) the label, of mixed labels (N, K) the heaviest."""
    return y if y.ndim == 1 else y.argmax(1)
