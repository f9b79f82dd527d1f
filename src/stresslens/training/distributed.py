"""One training by several processes, which torchrun starts: the first carries out the command, the
others train with it.

Only the first reads the study, writes files and prints. When it comes to a training it calls the
others, which build the same model on the same data and take their part of every batch; in between
they wait.
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
from stresslens.core.errors import ConfigError, Stopped, StresslensError, TrainingDiverged
from stresslens.core.run_folder import RunFolder
from stresslens.training.autotune import compute_config
from stresslens.training.loop import Show, Training, fit
from stresslens.training.setup import build_model
from stresslens.training.signals import noted
from stresslens.training.task import Task, load_data

if TYPE_CHECKING:
    from stresslens.training.process_group import TorchProcessGroup

GRACE_SECONDS = 5
"""How long a process that met an error waits to hear that the first met it too, and has told of it."""
SAVING_SECONDS = 60
"""How long one that was stopped waits for the first to save."""


@dataclass(frozen=True)
class TrainingOrder:
    """What the others must know of a training that begins: the task, the data it is for, the
    checkpoint it goes on from."""

    task: Task
    data: str
    state: dict[str, Any] | None


def begin_training(
    task: Task, data: Data, model: nn.Module, state: dict[str, Any] | None, folder: RunFolder, show: Show
) -> Training:
    """A training of this model from the state of a checkpoint, or from the start, in which all
    processes take part.

    Raises ConfigError where several cannot, and what any of them could not do.
    """
    group = distributed.group()
    group.call(TrainingOrder(task, data.fingerprint, state))
    with group.raise_in_all():
        return _training(task, data, model, state, folder, show)


def train_on_all_ranks(training: Training) -> None:
    """Raises what `training.fit` does, in every process."""
    group = training.group
    group.broadcast([*training.model.parameters(), *training.model.buffers()])
    with devices.on_threads(group.threads(training.compute.threads)):
        fit(training)


def _training(
    task: Task,
    data: Data,
    model: nn.Module,
    state: dict[str, Any] | None,
    folder: RunFolder,
    show: Show,
) -> Training:
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
    )
    smallest = (len(data.train) - 1) % training.batch_size + 1
    if smallest < group.place.world and any(
        isinstance(module, nn.SyncBatchNorm) for module in training.model.modules()
    ):
        raise ConfigError(
            f"batch norm needs an image for each of {group.place.world} processes, and {len(data.train)} images in batches of "
            f"{training.batch_size} leave {smallest}; change train.batch_size"
        )
    if state is not None:
        training.checkpointer.restore(state)
    return training


def admit(tasks: Sequence[Task]) -> None:
    """Raises ConfigError, before anything is trained, for models and devices that several processes
    cannot share."""
    group = distributed.group()
    seen = set()
    for task in tasks:
        key = json.dumps([task.config.model, task.config.train.device], sort_keys=True, default=str)
        networks = group.place.world > 1 and task.config.estimator is None
        if networks and key not in seen and not RunFolder(task.folder).weights.is_file():
            seen.add(key)
            group.take_device(task.config.train.device)
            group.normed(build_model(task, load_data(task)).to(task.config.train.device))


@contextmanager
def leading() -> Iterator[None]:
    """For the first process's command: when it ends, the others do."""
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
    """Every other process's work: its part in each training that the first begins. Raises
    SystemExit when the first ends.

    After an error of the first it ends in peace, so that torchrun names the one that failed.
    """
    devices.keep_memory()
    from stresslens.training.process_group import joined

    with joined() as group, noted() as signals:
        try:
            while (order := group.order(lambda: bool(signals), SAVING_SECONDS)) == distributed.TRAIN:
                with suppress(TrainingDiverged):  # the first tells of it, and may go on with another run
                    _take_part(group, signals)
        except (Exception, Stopped) as error:
            order = group.order(lambda: True, SAVING_SECONDS if isinstance(error, Stopped) else GRACE_SECONDS)
            if order in (None, distributed.TRAIN):
                raise _alone(error, group.place.rank) from error
        code = 128 + signals[-1] if order is None else int(order)
        sys.exit(code if code > 128 else 0)


def _alone(error: BaseException, rank: int) -> BaseException:
    """What a process ends with that has stopped or failed by itself."""
    if isinstance(error, Stopped):
        return SystemExit(error.exit_code)
    return StresslensError(f"process {rank}: {error}") if isinstance(error, StresslensError) else error


def _take_part(group: TorchProcessGroup, signals: list[int]) -> None:
    begun: TrainingOrder = group.meet()
    task = begun.task
    with group.raise_in_all():
        data = load_data(task)
        if data.fingerprint != begun.data:
            raise ConfigError(
                f"the data set {data.name} is another one here than where the first process runs"
            )
        training = _training(
            task,
            data,
            build_model(task, data),
            begun.state,
            RunFolder(task.folder),
            lambda position, epochs, done: None,
        )
    training.signals = signals
    train_on_all_ranks(training)
