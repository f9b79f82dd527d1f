from __future__ import annotations

import torch
from torch.optim import lr_scheduler

from stresslens.core.types import NonNegative, Positive, Scheduler
from stresslens.plugins.schedules._floor import above, lowest_share


def polynomial(
    optimizer: torch.optim.Optimizer, steps: int, *, power: Positive = 1.0, floor: NonNegative = 0.0
) -> Scheduler:
    """Falls from the learning rate to `floor` at the last step as (1 - step/steps)^`power`.

    See Liu et al. (2016, ParseNet, section 3.2); power 1 is a line, and 0.9 is usual in segmentation.
    `floor` belongs to `train.lr`, as in `cosine`.
    """
    return lr_scheduler.LambdaLR(
        optimizer, above(lowest_share(optimizer, floor), lambda step: max(0.0, 1 - step / steps) ** power)
    )
