"""What attacks raise: a loss for each image (N,), from logits (N, K), the labels y (N,) and the
class aimed at (N,)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from stresslens.core.attack_base import margins

LossAt = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(logits, y, aim) → what is raised."""

TINY = 1e-12


def log_odds(logits: Tensor, y: Tensor) -> Tensor:
    """log Σ exp z_k over k ≠ y, less z_y.

    Cross-entropy is log(1 + exp of this), so it rises in the same directions, image by image; but
    its gradient does not vanish in float32 when the model is sure (at logits 30·(1, 0, −1) that of
    the cross-entropy is exactly 0).
    """
    return logits.scatter(1, y[:, None], -torch.inf).logsumexp(1) - _of(logits, y)


def margin_targeted(logits: Tensor, y: Tensor, aim: Tensor) -> Tensor:
    """z_aim − z_y."""
    return _of(logits, aim) - _of(logits, y)


def margin_towards(logits: Tensor, y: Tensor, aim: Tensor) -> Tensor:
    """z_aim less the highest other: for images that are to be taken for that class, whichever they
    are taken for meanwhile."""
    return margins(logits, aim)


def dlr(logits: Tensor, y: Tensor) -> Tensor:
    """The difference of logits ratio −(z_y − max z_k≠y)/(z_π1 − z_π3), of three classes or more
    (Croce & Hein 2020, equation 6).

    Constant, with zero gradient, where y ranks third: such an image is fooled already.
    """
    best, _, third = logits.topk(3, 1).values.unbind(1)
    others = logits.scatter(1, y[:, None], -torch.inf).amax(1)
    return (others - _of(logits, y)) / (best - third + TINY)


def dlr_targeted(logits: Tensor, y: Tensor, aim: Tensor) -> Tensor:
    """−(z_y − z_aim)/(z_π1 − (z_π3 + z_π4)/2), of four classes or more (Croce & Hein 2020, equation 7)."""
    return margin_targeted(logits, y, aim) / _spread(logits)


def dlr_towards(logits: Tensor, y: Tensor, aim: Tensor) -> Tensor:
    """`margin_towards` over the spread of dlr_targeted, which it is while y ranks first."""
    return margins(logits, aim) / _spread(logits)


def _spread(logits: Tensor) -> Tensor:
    best, _, third, fourth = logits.topk(4, 1).values.unbind(1)
    return best - (third + fourth) / 2 + TINY


def _of(logits: Tensor, y: Tensor) -> Tensor:
    return logits.gather(1, y[:, None]).squeeze(1)
