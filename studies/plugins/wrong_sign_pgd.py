"""The attack that lab E's table points to. It is wrong; it is kept to show what such a table is like."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stresslens.plugins import Ball, Count, Draws, Positive, Watch, gradient


def wrong_sign_pgd(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    ball: Ball,
    draws: Draws,
    watch: Watch,
    target: Tensor | None,
    *,
    steps: Count = 10,
    step_size: Positive = 0.01,
    away: bool = True,
) -> Tensor:
    """Targeted PGD with a mistake: its steps raise the loss of the target in place of lowering it.

    So the target becomes less likely. A target that is the least likely class is at 0 already, so
    this hardly changes the prediction. As in the lab, the attack starts at the image itself and
    returns its last iterate. Without `away` it steps toward the target, all else equal. Without a
    target there is no mistake: the loss is that of y.
    """
    z, rows = x.clone(), torch.arange(len(x), device=x.device)
    label, sign = (y, 1) if target is None else (target, 1 if away else -1)
    for _ in range(steps):
        logits, loss, grad = gradient(model, z, _cross_entropy, label)
        watch(rows, z, logits, sign * loss, sign * grad)
        z = ball.project(z + step_size * sign * grad.sign(), x)
    return z


def _cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(logits, y, reduction="none")
