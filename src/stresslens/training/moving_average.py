"""Averages of the weights: the moving average (`ema`), and how much of it the first weights still are; the
average over epochs (`swa`)."""

from __future__ import annotations

from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from stresslens.config.schema import Train
from stresslens.core.copies import copied
from stresslens.core.data import Split
from stresslens.evaluation.record import Note
from stresslens.training.batch_norm import BATCH_NORM, renew_statistics

KIND = "short moving average"

NOTABLE = 0.05
"""A larger share of the first weights is told."""
SMALL = 0.01
"""The decay that the message recommends leaves this share."""


def weight_average(model: nn.Module, train: Train) -> AveragedModel | None:
    """The average of a model's weights that `train` asks for: exponential over updates (`ema`), or with
    equal weights over epochs (`swa`); None without either."""
    if not train.ema and not train.swa:
        return None
    average = AveragedModel(
        nn.Identity(), multi_avg_fn=get_ema_multi_avg_fn(train.ema) if train.ema else None
    )
    average.module = copied(model)
    return average


def averaged_model(average: AveragedModel | None, model: nn.Module) -> nn.Module:
    """The model of the average, where it has begun; otherwise the model itself."""
    return average.module if average is not None and average.n_averaged else model


def takes_epoch(share: float, epoch: int, epochs: int) -> bool:
    """Whether the average over epochs takes the weights at the end of this one, counted from 1: it does
    behind the `share` of all, which rounding may put a little below a whole epoch (0.29 · 100)."""
    return epoch - share * epochs > 1e-9 * epochs


def average_epoch(average: AveragedModel, model: nn.Module, images: Split, *, batch_size: int) -> None:
    """Adds the weights at the end of an epoch to the average over epochs (Izmailov et al. 2018, algorithm
    1), and computes the statistics of its batch norm anew.

    They are the mean over batches of the training images as they are, without augmentation and dropout.
    Layers whose statistics training keeps, because they are frozen, keep them here too.
    """
    average.update_parameters(model)
    norms = [
        ours
        for ours, theirs in zip(average.module.modules(), model.modules())
        if isinstance(ours, BATCH_NORM) and theirs.training and ours.track_running_stats
    ]
    renew_statistics(average.module, norms, images, batch_size=batch_size)


def average_findings(train: Train, *, updates: int, epoch: int) -> list[Note]:
    """The finding for the record of a training whose average of weights, at its chosen `epoch` and after
    `updates` of the optimizer, is hardly one: the moving average is still made of the first weights, or the
    average over epochs has one epoch. An empty list otherwise."""
    if train.swa:
        return _over_one_epoch(train.swa, epoch, train.epochs)
    return _of_first_weights(train.ema, updates)


def _over_one_epoch(share: float, epoch: int, epochs: int) -> list[Note]:
    if sum(takes_epoch(share, each, epochs) for each in range(1, epoch + 1)) != 1:
        return []
    message = (
        f"the average over epochs has the weights of epoch {epoch} alone (swa: {share:g}, {epochs} epochs), "
        "which is none; let it begin earlier, or train for longer"
    )
    return [Note(kind=KIND, message=message)]


def _of_first_weights(decay: float | None, updates: int) -> list[Note]:
    """The average begins as the weights after the first update, which keep the share
    decay^(updates - 1)."""
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
