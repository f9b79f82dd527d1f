from __future__ import annotations

import warnings

import torch
from torch.optim import lr_scheduler

from stresslens.core.errors import ConfigError
from stresslens.core.types import PluginOption, Schedule, Scheduler, Share
from stresslens.plugins.schedules.constant import Constant


def warmup(
    optimizer: torch.optim.Optimizer,
    steps: int,
    steps_per_epoch: int,
    *,
    share: Share = 0.05,
    then: PluginOption[Schedule] = "cosine",
) -> Scheduler:
    """Linear warm-up over the first `share` of all steps, then the schedule `then` over the rest.

    Raises ConfigError if `then` does not begin at the learning rate, as `one_cycle`, which has a
    warm-up of its own.
    """
    rising = max(1, round(share * steps))
    rates = [group["lr"] for group in optimizer.param_groups]
    after = then(optimizer=optimizer, steps=max(1, steps - rising), steps_per_epoch=steps_per_epoch)
    begins = [group["lr"] / rate for group, rate in zip(optimizer.param_groups, rates)]
    if any(abs(begin - 1) > 1e-6 for begin in begins):
        own = isinstance(after, lr_scheduler.OneCycleLR)
        raise ConfigError(
            f"warmup rises to the learning rate, but the schedule after it begins at {min(begins):.3g} times "
            "the learning rate; give that schedule without warmup"
            + (" (one_cycle has its own: its option `rise` is the share of the steps)" if own else "")
        )
    if isinstance(after, Constant):
        after = lr_scheduler.ConstantLR(optimizer, factor=1.0, total_iters=0)
    if not isinstance(after, lr_scheduler.LRScheduler) or isinstance(after, lr_scheduler.ReduceLROnPlateau):
        raise ConfigError(
            "warmup can only be followed by a schedule that returns a torch LRScheduler, whose step needs "
            "no metric"
        )
    rise = lr_scheduler.LinearLR(optimizer, start_factor=1 / (rising + 1), total_iters=rising)
    return _Sequence(optimizer, [rise, after], milestones=[rising])


class _Sequence(lr_scheduler.SequentialLR):
    """As torch's, without the warning of older versions about their own call where the second schedule
    begins.

    Only that step is inside `catch_warnings`, after which Python shows every warning once more.
    """

    def step(self) -> None:  # type: ignore[override]
        if self.last_epoch + 1 not in self._milestones:
            super().step()
            return
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The epoch parameter in `scheduler.step", UserWarning)
            super().step()
