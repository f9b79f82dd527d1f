"""The optimizer and the learning-rate schedule that a configuration names."""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import nn

from stresslens.config import registry
from stresslens.config.schema import Train
from stresslens.core.errors import ConfigError
from stresslens.core.types import Parameters, Scheduler
from stresslens.training.bare_steps import without_import


def build_optimizer(
    train: Train, parameters: Parameters, model: nn.Module, base: Path
) -> torch.optim.Optimizer:
    """The optimizer that `train` names, over parameters of a model (a net behind its input layers) or
    groups of them. Raises ConfigError when the plug-in returns anything else, and for an optimizer
    whose step needs a closure."""
    resolved = registry.resolve("optimizers", train.optimizer, base=base)
    with without_import():
        optimizer = resolved(parameters=parameters, lr=train.lr, net=model.get_submodule("net"))
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise ConfigError(
            f"the optimizer {train.optimizer!r} returned {optimizer!r:.60}; expected a torch.optim.Optimizer"
        )
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    if closure is not None and closure.default is closure.empty:
        raise ConfigError(
            f"the optimizer {train.optimizer!r} computes the loss several times in a step (a closure), "
            "which training by batches does not; take another"
        )
    return optimizer


def build_schedule(
    train: Train, optimizer: torch.optim.Optimizer, steps_per_epoch: int, base: Path
) -> Scheduler:
    """The schedule of the learning rate over all updates of the training. Raises ConfigError when
    the plug-in returns anything else."""
    updates = math.ceil(steps_per_epoch / train.accumulate)
    resolved = registry.resolve("schedules", train.schedule, base=base)
    schedule: Scheduler = resolved(optimizer=optimizer, steps=train.epochs * updates, steps_per_epoch=updates)
    if not all(hasattr(schedule, part) for part in ("step", "state_dict", "load_state_dict")):
        raise ConfigError(
            f"the schedule {train.schedule!r} returned {schedule!r:.60}; expected a torch LRScheduler"
        )
    if isinstance(schedule, torch.optim.lr_scheduler.ReduceLROnPlateau):
        raise ConfigError(
            f"the schedule {train.schedule!r} needs a metric at every step, and a schedule gets none; take "
            "the built-in plateau, which is told the figures on validation"
        )
    return schedule


def needs_validation(train: Train, base: Path) -> bool:
    """Whether the schedule is told the figures on validation."""
    schedule = registry.resolve("schedules", train.schedule, base=base)
    return schedule.answer_beside("needs_validation") is True


def step_schedule(schedule: Scheduler, *, skipped: bool = False) -> None:
    """One update further. A schedule follows the batches, so that it ends where it was laid out to end,
    also where the update itself was skipped."""
    with warnings.catch_warnings() if skipped else nullcontext():
        if skipped:  # torch warns where the first update of the optimizer is still to come
            warnings.filterwarnings("ignore", message=".*lr_scheduler.step.* before .*optimizer.step")
        schedule.step()


def tell_schedule(schedule: Scheduler, figures: Mapping[str, Mapping[str, float]]) -> None:
    """Tells the schedule the figures on validation of an evaluation, if it has a method for them."""
    after_evaluation = getattr(schedule, "after_evaluation", None)
    if after_evaluation is not None and "validation" in figures:
        after_evaluation(figures["validation"])
