"""Where a training stands."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass
class TrainingState:
    """Where training stands: with the tensors beside it in the checkpoint, all that is needed to go on."""

    epoch: int = 0
    """Epochs completed."""
    step: int = 0
    """Batches of the running epoch that are done."""
    updates: int = 0
    images: int = 0
    """Images of the running epoch that are done, over which `loss_sum` runs."""
    loss_sum: float = 0.0
    last_loss: float = math.nan
    last_loss_before: float = math.nan
    """The last batch's loss one epoch ago: what the labs' stopping rule looks at."""
    best: tuple[float, float] = (-math.inf, -math.inf)
    best_epoch: int = 0
    evaluations_since_best: int = 0
    stopped: str = ""
    seconds: float = 0.0
    """In training steps, over all attempts; evaluation and checkpoints left out."""
    metrics_bytes: int = 0
    timings_bytes: int = 0
    reads_of_test: int = 0
