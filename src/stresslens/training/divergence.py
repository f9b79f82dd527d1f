"""The error of a training whose loss or gradient is no longer finite."""

from __future__ import annotations

import math
from pathlib import Path

from stresslens.core.errors import TrainingDiverged
from stresslens.training.state import TrainingState

SHOWN = 8
"""Images that the message names."""


def divergence(
    loss: float, images: list[int], state: TrainingState, *, lr: float, checkpoint: Path
) -> TrainingDiverged:
    """The error of a batch of training images whose loss, or else a gradient of it, is not finite."""
    shown = ", ".join(map(str, images[:SHOWN]))
    shown += f", … ({len(images)} in all)" if len(images) > SHOWN else ""
    what = f"the loss is {loss}" if not math.isfinite(loss) else "a gradient is not finite"
    saved = f". The last good weights are in {checkpoint}" if checkpoint.exists() else ""
    return TrainingDiverged(
        f"{what} in epoch {state.epoch + 1}, batch {state.step + 1}, at the training images {shown}. "
        f"Lower train.lr (now {lr:g}) or set train.clip{saved}",
        images,
    )
