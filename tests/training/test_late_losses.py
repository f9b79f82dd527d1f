"""Losses that are read one batch late, as on a GPU: the same training, and no checkpoint of broken
weights. Here the device is the CPU."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from trainings import lines, same_bits_after_a_stop, training_of, weights

from stresslens.core.devices import ComputeConfig
from stresslens.core.distributed import ALONE
from stresslens.core.errors import TrainingDiverged
from stresslens.core.run_folder import RunFolder
from stresslens.study import stages
from stresslens.training.late_losses import reads_late
from stresslens.training.loop import fit
from stresslens.training.task import Task

Make = Callable[..., Task]
NET = {"simple_cnn": {"channels": 4, "hidden": 16, "batch_norm": True}}


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Whether trainings from here on read their losses late."""
    return lambda on: monkeypatch.setattr("stresslens.training.loop.reads_late", lambda *given: on)


@pytest.mark.parametrize(
    ("device", "precision", "expected"),
    [
        ("cpu", "float32", False),
        ("cuda", "float32", True),
        ("cuda", "bfloat16", True),
        ("cuda", "float16", False),
    ],
)
def test_losses_are_read_late_on_a_gpu(device: str, precision: Any, expected: bool) -> None:
    assert reads_late(ComputeConfig(device, precision, 1, "contiguous"), ALONE) is expected


@pytest.mark.parametrize(
    "train",
    [
        {"batch_size": 50, "accumulate": 2, "ema": 0.9, "watch": ["train", "validation"]},
        {"batch_size": "full", "stop": {"loss_change": 0.05}, "epochs": 30},
        {"batch_size": 50, "objective": {"free": {"eps": 0.1}}, "replay": 2, "schedule": "plateau"},
    ],
)
def test_the_same_bits_as_losses_that_are_read_at_once(
    late: Callable[[bool], None], task_of: Make, tmp_path: Path, train: dict[str, Any]
) -> None:
    tasks = {on: task_of(NET, folder=tmp_path / str(on), **train) for on in (False, True)}
    for on, task in tasks.items():
        late(on)
        stages.carry_out(task)
    assert lines(tasks[True]) == lines(tasks[False])
    assert all(value.equal(weights(tasks[False])[name]) for name, value in weights(tasks[True]).items())
    first = [
        RunFolder(task.folder).record.read_text().split('"first_loss": ')[1][:12] for task in tasks.values()
    ]
    assert first[0] == first[1]


def test_clipping_on_the_device_is_clipping(
    late: Callable[[bool], None], task_of: Make, tmp_path: Path
) -> None:
    settings = {"clip": 0.1, "optimizer": "momentum", "lr": 0.1, "select": "last", "accumulate": 2}
    found = []
    for on in (False, True):
        late(on)
        training = training_of(task_of(NET, folder=tmp_path / str(on), **settings))
        fit(training)
        found.append(training.chosen())
    for name, value in found[0].items():
        torch.testing.assert_close(value, found[1][name], rtol=1e-4, atol=1e-6)


def test_stopped_and_resumed_gives_the_same_bits(
    late: Callable[[bool], None], task_of: Make, tmp_path: Path
) -> None:
    late(True)
    whole, stopped = (task_of(NET, folder=tmp_path / name, batch_size=50) for name in ("whole", "stopped"))
    same_bits_after_a_stop(whole, stopped, 2)


def planted(training: Any, at: int) -> None:
    """Makes the loss of a batch NaN."""
    plain = training.batch_loss
    training.batch_loss = lambda batch: plain(batch) * (math.nan if training.iteration == at else 1)


@pytest.mark.parametrize("batch", [0, 4, 5, 7])
def test_divergence_names_its_own_batch(
    batch: int, late: Callable[[bool], None], task_of: Make, tmp_path: Path
) -> None:
    """Three batches an epoch: also where it is the last of an epoch."""
    told = []
    for on in (False, True):
        late(on)
        training = training_of(task_of(NET, folder=tmp_path / str(on), batch_size=40))
        planted(training, batch)
        with pytest.raises(TrainingDiverged) as caught:
            fit(training)
        told.append((str(caught.value).partition(". The last")[0], caught.value.images))
        assert training.state.step == {0: 0, 4: 2, 5: 3, 7: 2}[batch] if on else True
    assert told[0] == told[1]


def test_no_checkpoint_has_broken_weights(late: Callable[[bool], None], task_of: Make) -> None:
    """It is due after every batch: after the broken one too."""
    late(True)
    task = task_of(NET, batch_size=40, checkpoint_seconds=1e-9)
    training = training_of(task)
    planted(training, 4)
    with pytest.raises(TrainingDiverged, match="The last good weights are in"):
        fit(training)
    assert not all(p.isfinite().all() for p in training.parameters)
    state, _ = RunFolder(task.folder).load_checkpoint()
    assert state is not None
    assert (state["position"]["epoch"], state["position"]["step"]) == (1, 1)
    assert all(value.isfinite().all() for value in state["net"].values())
