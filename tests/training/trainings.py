"""A training without a study, and what it wrote."""

from __future__ import annotations

from typing import Any

import safetensors.torch
import torch

from stresslens.core.distributed import ALONE, ProcessGroup
from stresslens.core.run_folder import RunFolder
from stresslens.study import stages
from stresslens.training.autotune import compute_config
from stresslens.training.loop import Training, fit
from stresslens.training.setup import build_model
from stresslens.training.task import Task


def training_of(task: Task, group: ProcessGroup = ALONE) -> Training:
    assert task.data is not None
    torch.manual_seed(task.seed)
    task.folder.mkdir(parents=True, exist_ok=True)
    return Training(
        build_model(task, task.data),
        task.data,
        task.config.train,
        compute=compute_config(task),
        seed=task.seed,
        folder=RunFolder(task.folder),
        base=task.base,
        show=lambda position, epochs, done: None,
        group=group,
    )


def lines(task: Task) -> list[dict[str, Any]]:
    return RunFolder(task.folder).read_lines(RunFolder(task.folder).metrics)


def weights(task: Task) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(task.folder / "model.safetensors")


def same_bits_after_a_stop(whole: Task, stopped: Task, epochs: int) -> dict[str, Any]:
    """Asserts that a training which stops after some epochs, and then goes on from its checkpoint, logs and
    keeps the same as the whole one; returns the checkpoint."""
    stages.carry_out(whole)
    training = training_of(stopped)
    training.until = epochs
    fit(training)
    resumed = training_of(stopped)
    state, _ = RunFolder(stopped.folder).load_checkpoint()
    assert state is not None
    resumed.checkpointer.restore(state)
    fit(resumed)
    assert lines(stopped) == lines(whole)
    assert all(value.equal(resumed.chosen()[name]) for name, value in weights(whole).items())
    return state
