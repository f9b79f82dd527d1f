"""The error of a training whose loss or gradient is no longer finite."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import nn

from stresslens.core.errors import TrainingDiverged
from stresslens.core.text import counted
from stresslens.training.loss_scale import FLOOR
from stresslens.training.state import TrainingState

SHOWN = 8
"""Images that the message names."""


def all_finite(model: nn.Module) -> bool:
    """Whether every weight and buffer is finite."""
    return all(bool(torch.isfinite(value).all()) for value in model.state_dict().values())


def divergence(
    loss: float,
    images: list[int],
    state: TrainingState,
    lr: float,
    checkpoint: Path,
    *,
    scaled: bool = False,
    at: tuple[int, int] | None = None,
) -> TrainingDiverged:
    """The error of a batch of training images whose loss, or else a gradient of it, is not finite. The
    loss is `scaled` in float16; `at` are the epoch and the batch, by default those of the state."""
    epoch, step = at or (state.epoch, state.step)
    shown = ", ".join(map(str, images[:SHOWN]))
    shown += f", … ({len(images)} in all)" if len(images) > SHOWN else ""
    what = f"the loss is {loss}" if not math.isfinite(loss) else "a gradient is not finite"
    saved = f". The last good weights are in {checkpoint}" if checkpoint.exists() else ""
    tried = ""
    if scaled:
        updates = counted(state.skipped, "update")
        tried = f"The scale of the loss fell to {FLOOR:g}, its lowest, and {updates} had been skipped. "
    ways = "Lower" if not scaled else "Set train.precision: float32, or lower"
    return TrainingDiverged(
        f"{what} in epoch {epoch + 1}, batch {step + 1}, at the training images {shown}. "
        f"{tried}{ways} train.lr (now {lr:g}) or set train.clip{saved}",
        images,
    )
