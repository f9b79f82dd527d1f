"""The optimizer and the learning-rate schedule that a configuration names."""

from __future__ import annotations

import math
from pathlib import Path

import torch

from stresslens.config import registry
from stresslens.config.schema import Train
from stresslens.core.errors import ConfigError
from stresslens.core.types import Parameters, Scheduler


def build_optimizer(train: Train, parameters: Parameters, base: Path) -> torch.optim.Optimizer:
    """The optimizer that `train` names, over parameters or groups of them. Raises ConfigError when
    the plug-in returns anything else."""
    optimizer = registry.resolve("optimizers", train.optimizer, base=base)(parameters, train.lr)
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise ConfigError(
            f"the optimizer {train.optimizer!r} returned {optimizer!r:.60}; expected a torch.optim.Optimizer"
        )
    return optimizer


def build_schedule(
    train: Train, optimizer: torch.optim.Optimizer, steps_per_epoch: int, base: Path
) -> Scheduler:
    """The schedule of the learning rate over all updates of the training. Raises ConfigError when
    the plug-in returns anything else."""
    updates = math.ceil(steps_per_epoch / train.accumulate)
    resolved = registry.resolve("schedules", train.schedule, base=base)
    schedule: Scheduler = resolved(optimizer, train.epochs * updates, updates)
    if not all(hasattr(schedule, part) for part in ("step", "state_dict", "load_state_dict")):
        raise ConfigError(
            f"the schedule {train.schedule!r} returned {schedule!r:.60}; expected a torch LRScheduler"
        )
    return schedule
