"""torch's optimizers without what torch wraps around them: its compiler, profiler and hooks.

An optimizer imports torch's compiler at its first use, only to keep it out. Each step then asks it
twice more, opens a range of the profiler, and looks for hooks; for a small net this takes longer
than the update.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim import optimizer as wrappers

from stresslens.core.torch_compiler import without_compiler


def without_import() -> AbstractContextManager[None]:
    """Inside the context optimizers are made, saved and loaded without the import of torch's compiler."""
    return without_compiler(Optimizer.add_param_group, Optimizer.state_dict, Optimizer.load_state_dict)


def bare_step(optimizer: Optimizer) -> Callable[[], Any]:
    """A function that does what `optimizer.step()` does, to the bit. For an optimizer of torch without
    hooks it is the update alone; for any other it is `optimizer.step`."""
    if not _wrapped_by_torch_alone(optimizer):
        return optimizer.step
    update = inspect.unwrap(type(optimizer).step)

    def bare() -> Any:
        optimizer._opt_called = True  # type: ignore[attr-defined]  # schedules of torch look for it
        with torch.no_grad():
            return update(optimizer)

    return bare


def _wrapped_by_torch_alone(optimizer: Optimizer) -> bool:
    """Whether nobody but torch has a hand in the step of an optimizer: its class is torch's, there are
    no hooks, no gradient is asked for, and nothing but a schedule of torch has replaced `step`."""
    step, own = type(optimizer).step, vars(optimizer).get("step")
    by_schedule = own is None or (
        getattr(own, "_wrapped_by_lr_sched", False) and getattr(own, "__wrapped__", None) is step
    )
    hooks = (
        optimizer._optimizer_step_pre_hooks,
        optimizer._optimizer_step_post_hooks,
        wrappers._global_optimizer_pre_hooks,
        wrappers._global_optimizer_post_hooks,
    )
    return (
        type(optimizer).__module__.startswith("torch.optim.")
        and by_schedule
        and not any(hooks)
        and not optimizer.defaults.get("differentiable", False)
    )
