"""Distributed training: several processes that torchrun starts train one model together.

Only the first process (rank 0) carries out the command: it reads the study, writes files and
prints. At the start of each training it calls the others, which build the same model on the same
data and compute their part of every batch. Between two trainings they wait.
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import nn

from stresslens.core import devices, distributed
from stresslens.core.data import Data
from stresslens.core.errors import ConfigError, ProcessLost, Stopped, StresslensError, TrainingDiverged
from stresslens.core.pieces import first_words, is_out_of_memory
from stresslens.core.run_folder import RunFolder
from stresslens.training.autotune import compute_config
from stresslens.training.loop import Show, Training, fit
from stresslens.training.setup import build_model
from stresslens.training.signals import noted
from stresslens.training.stack import Stack, fit_together
from stresslens.training.task import Task, load_data
from stresslens.training.teacher import open_teacher

if TYPE_CHECKING:
    from stresslens.training.process_group import TorchProcessGroup

GRACE_SECONDS = 5
"""How long a process that failed waits for the first process, which may have reported the same
error."""
SAVING_SECONDS = 60
"""How long a process that was stopped waits for the first process to save."""


@dataclass(frozen=True)
class TrainingOrder:
    """What the first process sends to the others at the start of a training."""

    task: Task
    data: str
    """The fingerprint of the data set."""
    checkpoint: dict[str, Any] | None
    """The content of the checkpoint that training resumes from; None for a training from the start."""


def begin_training(
    task: Task, data: Data, model: nn.Module, checkpoint: dict[str, Any] | None, folder: RunFolder, show: Show
) -> Training:
    """A training of this model, from the content of a checkpoint or from the start, in all processes.

    Raises ConfigError where several processes cannot train it, and the error that any of them met.
    """
    group = distributed.group()
    group.call(TrainingOrder(task, data.fingerprint, checkpoint))
    with group.raise_in_all():
        return _training(task, data, model, checkpoint, folder, show)


def train_on_all_ranks(training: Training) -> None:
    """Runs the loop with the first process's weights in all. Raises what `loop.fit` raises, in every
    process; of several, ProcessLost where one fails in the middle of the training."""
    group = training.group
    group.broadcast([*training.model.parameters(), *training.model.buffers()])
    with devices.on_threads(group.threads(training.compute.threads)):
        try:
            with _saying_that_memory_ran_out(training):
                _fit(training)
        except (TrainingDiverged, ProcessLost):
            raise
        except Exception as error:
            if group.place.world == 1:
                raise
            what = str(error) if isinstance(error, StresslensError) else f"{type(error).__name__}: {error}"
            lost = ProcessLost(what)
            lost.exit_code = error.exit_code if isinstance(error, StresslensError) else lost.exit_code
            raise lost from error


@contextmanager
def _saying_that_memory_ran_out(training: Training) -> Iterator[None]:
    """Raises StresslensError, with the ways out, where memory runs out."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        more = "" if training.compute.recompute else ", or set train.recompute: true"
        raise StresslensError(
            f"memory ran out in a step of the training ({first_words(error)}); lower train.batch_size "
            f"(train.accumulate keeps the images of an update){more}"
        ) from error


def _fit(training: Training) -> None:
    """Trains it as its runs of `train.stack` are computed, or as others are."""
    if training.train.stack is not True:
        fit(training)
        return
    stack = Stack([training])
    fit_together(stack)
    for error in stack.errors.values():
        raise error


def _training(
    task: Task,
    data: Data,
    model: nn.Module,
    checkpoint: dict[str, Any] | None,
    folder: RunFolder,
    show: Show,
) -> Training:
    """This process's part of a training."""
    group, compute = distributed.group(), compute_config(task)
    group.take_device(compute.device)
    training = Training(
        group.normed(compute.place(model)),
        data.to(compute.device),
        task.config.train,
        compute=compute,
        seed=task.seed,
        folder=folder,
        base=task.base,
        show=show,
        group=group,
        until=task.until,
        teacher=open_teacher(task, data, compute),
    )
    smallest = (len(data.train) - 1) % training.batch_size + 1
    if smallest < group.place.world and any(
        isinstance(module, nn.SyncBatchNorm) for module in training.model.modules()
    ):
        raise ConfigError(
            f"batch norm needs an image for each of {group.place.world} processes, and {len(data.train)} "
            f"images in batches of {training.batch_size} leave {smallest}; change train.batch_size"
        )
    if checkpoint is not None:
        training.checkpointer.restore(checkpoint)
    return training


def admit(tasks: Sequence[Task]) -> None:
    """Raises ConfigError, before anything is trained, for models and devices that several processes
    cannot share."""
    group = distributed.group()
    checked = set()
    for task in tasks:
        device = compute_config(task).device
        key = json.dumps([task.config.model, device], sort_keys=True, default=str)
        shared = group.place.world > 1 and task.config.estimator is None
        if shared and key not in checked and not RunFolder(task.folder).weights.is_file():
            checked.add(key)
            group.take_device(device)
            group.normed(build_model(task, load_data(task)).to(device))


@contextmanager
def leading() -> Iterator[None]:
    """Wraps the command of the first process: when it ends, the others end too."""
    code: Any = 1
    from stresslens.training.process_group import joined  # one process never imports it

    with joined() as group:
        try:
            yield
            code = 0
        except SystemExit as end:
            code = end.code or 0
            raise
        finally:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # torchrun's, when the others end first
            group.dismiss(code if isinstance(code, int) else 1)


def follow() -> None:
    """Runs every other process: its part of each training that the first process begins. Raises
    SystemExit when the first ends.

    After an error of the first process it exits with 0, so that torchrun names the one that failed.
    """
    devices.keep_memory()
    from stresslens.training.process_group import joined

    with joined() as group, noted() as signals:
        try:
            while (order := group.order(lambda: bool(signals), SAVING_SECONDS)) == distributed.TRAIN:
                with suppress(TrainingDiverged):  # the first reports it, and may continue with another run
                    if (training := _joined_training(group)) is not None:
                        training.signals = signals
                        train_on_all_ranks(training)
        except (Exception, Stopped) as error:
            order = group.order(lambda: True, SAVING_SECONDS if isinstance(error, Stopped) else GRACE_SECONDS)
            if order in (None, distributed.TRAIN):
                raise _own_error(error, group.place.rank) from error
        code = 128 + signals[-1] if order is None else int(order)
        sys.exit(code if code > 128 else 0)


def _own_error(error: BaseException, rank: int) -> BaseException:
    """The error that a process ends with if it stopped or failed while the first process did not."""
    if isinstance(error, Stopped):
        return SystemExit(error.exit_code)
    return StresslensError(f"process {rank}: {error}") if isinstance(error, StresslensError) else error


def _joined_training(group: TorchProcessGroup) -> Training | None:
    """This process's part of the training that the first process begins. None where a process cannot
    set it up: that is raised in all, and the first reports it and may continue with another run."""
    order: TrainingOrder = group.meet()
    task = order.task
    try:
        with group.raise_in_all():
            data = load_data(task)
            if data.fingerprint != order.data:
                raise ConfigError(f"the data set {data.name} differs from that of the first process")
            return _training(
                task,
                data,
                build_model(task, data),
                order.checkpoint,
                RunFolder(task.folder),
                lambda state, epochs, share_done: None,
            )
    except ProcessLost:
        raise
    except Exception:
        return None
