"""The progress of a training, as its checkpoint saves it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stresslens.config.schema import Stop


@dataclass
class TrainingState:
    """How far a training has come. With the tensors beside it in the checkpoint it is all that
    resuming needs."""

    epoch: int = 0
    """Epochs completed."""
    step: int = 0
    """Batches of the current epoch that are done."""
    updates: int = 0
    """Steps of the optimizer."""
    skipped: int = 0
    """Updates that were skipped, in float16, because the gradient was not finite."""
    images: int = 0
    """Images of the current epoch that are done; `loss_sum` is the sum of their losses."""
    loss_sum: float = 0.0
    first_loss: float = math.nan
    """The first batch's loss, before any update."""
    last_loss: float = math.nan
    last_loss_before: float = math.nan
    """The last batch's loss one epoch ago, for `stop: {loss_change: …}`."""
    best: tuple[float, float] = (-math.inf, -math.inf)
    """The rank of the best epoch so far (SelectionRule.rank)."""
    best_epoch: int = 0
    evaluations_since_best: int = 0
    stopped: str = ""
    """Why training ended before its last epoch; empty while it has not."""
    seconds: float = 0.0
    """Time in training steps, over all attempts, without evaluation and checkpoints."""
    metrics_bytes: int = 0
    timings_bytes: int = 0
    """Lengths of metrics.jsonl and timings.jsonl."""
    reads_of_test: int = 0

    def add_loss(self, loss: float, images: int) -> None:
        """Counts the loss of a batch. In float16 that of a skipped update may not be finite; it is left
        out."""
        if math.isfinite(loss):
            self.last_loss = loss
            self.loss_sum += loss * images
            self.images += images

    @property
    def mean_losses(self) -> dict[str, float | None]:
        """The epoch's mean loss and that of the last batch, as a line of metrics.jsonl names them; None
        where no loss was finite."""
        return {
            "loss": self.loss_sum / self.images if self.images else None,
            "last_loss": None if math.isnan(self.last_loss) else self.last_loss,
        }

    def stop_if_loss_settled(self, stop: Stop | None) -> None:
        """Ends the training where the last batch's loss changed by less than `stop` says."""
        if stop and stop.loss_change and abs(self.last_loss - self.last_loss_before) < stop.loss_change:
            self.stopped = f"the last batch's loss changed by less than {stop.loss_change:g}"
        self.last_loss_before = self.last_loss

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Takes the values from a checkpoint. Raises TypeError for a key that is none of these."""
        restored = TrainingState(**saved)
        restored.best = tuple(restored.best)  # type: ignore[assignment]
        vars(self).update(vars(restored))
