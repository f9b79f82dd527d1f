"""Losses of attacks: log-odds, margins, difference of logits ratio (DLR).

Each maps logits (N, K), labels y (N,) and target classes `aim` (N,) to a loss (N,) that an attack
maximises.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from stresslens.core.attack_base import margins

LossAt = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(logits, y, aim) → the loss that an attack maximises."""

TINY = 1e-12


def log_odds(logits: Tensor, y: Tensor) -> Tensor:
    """log Σ exp z_k over k ≠ y, minus z_y.

    Cross-entropy is log(1 + exp of this), so both rise in the same directions for each image. But
    the gradient of the log-odds does not vanish in float32 when the model is confident. (At logits
    30·(1, 0, −1) that of the cross-entropy is exactly 0.)
    """
    return logits.scatter(1, y[:, None], -torch.inf).logsumexp(1) - _of(logits, y)


def margin_targeted(logits: Tensor, y: Tensor, aim: Tensor) -> Tensor:
    """z_aim − z_y."""
    return _of(logits, aim) - _of(logits, y)


def margin_towards(logits: Tensor, y: Tensor, aim: Tensor) -> Tensor:
    """z_aim minus the highest other logit; positive exactly if the image is classified as `aim`."""
    return margins(logits, aim)


def dlr(logits: Tensor, y: Tensor) -> Tensor:
    """The difference of logits ratio −(z_y − max z_k≠y)/(z_π1 − z_π3), for at least three classes.

    See Croce & Hein (2020), equation 6. Where y ranks third it is constant with zero gradient; such
    an image is already misclassified.
    """
    best, _, third = logits.topk(3, 1).values.unbind(1)
    others = logits.scatter(1, y[:, None], -torch.inf).amax(1)
    return (others - _of(logits, y)) / (best - third + TINY)


def dlr_targeted(logits: Tensor, y: Tensor, aim: Tensor) -> Tensor:
    """−(z_y − z_aim)/(z_π1 − (z_π3 + z_π4)/2), for four classes or more.

    See Croce & Hein (2020), equation 7.
    """
    return margin_targeted(logits, y, aim) / _spread(logits)


def dlr_towards(logits: Tensor, y: Tensor, aim: Tensor) -> Tensor:
    """`margin_towards` divided by the denominator of `dlr_targeted`; equal to it while y ranks
    first."""
    return margins(logits, aim) / _spread(logits)


def _spread(logits: Tensor) -> Tensor:
    best, _, third, fourth = logits.topk(4, 1).values.unbind(1)
    return best - (third + fourth) / 2 + TINY


def _of(logits: Tensor, y: Tensor) -> Tensor:
    return logits.gather(1, y[:, None]).squeeze(1)
