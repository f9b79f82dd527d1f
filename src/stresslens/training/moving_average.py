"""The moving average of the weights (`ema`), and how much of it the first weights still are."""

from __future__ import annotations

from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from stresslens.core.copies import copied
from stresslens.evaluation.record import Note

KIND = "short moving average"

NOTABLE = 0.05
"""A larger share of the first weights is told."""
SMALL = 0.01
"""The decay that the message recommends leaves this share."""


def moving_average(model: nn.Module, decay: float) -> AveragedModel:
    """The exponential moving average of a model's weights."""
    average = AveragedModel(nn.Identity(), multi_avg_fn=get_ema_multi_avg_fn(decay))
    average.module = copied(model)
    return average


def average_findings(decay: float | None, updates: int) -> list[Note]:
    """The finding for the record of a training whose moving average is still made of its first
    weights, after `updates` of the optimizer; an empty list otherwise.

    The average begins as the weights after the first update, which keep the share decay^(updates - 1).
    """
    if not decay or updates < 1 or (share := decay ** (updates - 1)) <= NOTABLE:
        return []
    shorter = SMALL ** (1 / (updates - 1)) if updates > 1 else 0.0
    remedy = (
        f"ema: {shorter:.3g} would leave {SMALL:.0%}, or train for longer"
        if updates > 2
        else "train for longer, or leave ema out"
    )
    message = (
        f"{share:.1%} of the kept weights are those after the first update: the moving average "
        f"(ema: {decay:g}) is too slow for the {updates:,} updates until the chosen epoch; {remedy}"
    )
    return [Note(kind=KIND, message=message)]
