from __future__ import annotations

import torch
from torch.optim import lr_scheduler

from stresslens.core.errors import ConfigError
from stresslens.core.types import Schedule, Scheduler, Share
from stresslens.plugins.schedules.constant import Constant


def warmup(
    optimizer: torch.optim.Optimizer,
    steps: int,
    steps_per_epoch: int,
    *,
    share: Share = 0.05,
    then: Schedule = "cosine",  # type: ignore[assignment]
) -> Scheduler:
    """Linear warm-up over the first `share` of all steps, then the schedule `then` over the
    rest."""
    rising = max(1, round(share * steps))
    after = then(optimizer, max(1, steps - rising), steps_per_epoch)
    if isinstance(after, Constant):
        after = lr_scheduler.ConstantLR(optimizer, factor=1.0, total_iters=0)
    if not isinstance(after, lr_scheduler.LRScheduler):
        raise ConfigError("warmup can only be followed by a schedule that returns a torch LRScheduler")
    rise = lr_scheduler.LinearLR(optimizer, start_factor=1 / (rising + 1), total_iters=rising)
    return lr_scheduler.SequentialLR(optimizer, [rise, after], milestones=[rising])
