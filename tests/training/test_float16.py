"""Training in float16: the scale of the loss, skipped updates, and what a checkpoint holds of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from loop_step import loop_step
from several import each, in_group
from torch import Tensor, nn
from trainings import lines, same_bits_after_a_stop, training_of, weights

from stresslens.core import compute_choice
from stresslens.core.distributed import ProcessGroup
from stresslens.core.errors import ConfigError, TrainingDiverged
from stresslens.core.run_folder import RunFolder
from stresslens.evaluation.record import read_record
from stresslens.study import stages
from stresslens.training.batch_loss import BatchLoss
from stresslens.training.loop import fit
from stresslens.training.setup import build_model
from stresslens.training.task import Task

Make = Callable[..., Task]
NET = {"mlp": {"widths": [16]}}
HALF: dict[str, Any] = {"precision": "float16", "select": "last", "watch": []}


@pytest.mark.parametrize("optimizer", ["adam", "momentum"])
def test_equals_torchs_loop_with_a_grad_scaler(task_of: Make, optimizer: str) -> None:
    """Four epochs as torch's documentation writes them, with gradients that are clipped, and the first
    updates skipped because the scale begins too high."""
    task = task_of(NET, epochs=4, batch_size=50, lr=0.01, clip=0.5, optimizer=optimizer, **HALF)
    training = training_of(task)
    training.loss_scale.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**22)
    fit(training)
    assert task.data is not None
    torch.manual_seed(task.seed)
    model = build_model(task, task.data)
    net = model.net
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**22)
    steps = {
        "adam": lambda: torch.optim.Adam(net.parameters(), lr=0.01, fused=True),
        "momentum": lambda: torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9),
    }[optimizer]()
    skipped = 0
    for epoch in range(4):
        for batch in task.data.train.batches(50, seed=task.seed, epoch=epoch):
            steps.zero_grad()
            with torch.autocast("cpu", torch.float16):
                loss = nn.functional.cross_entropy(model(batch.x), batch.y)
            scaler.scale(loss).backward()
            scaler.unscale_(steps)
            norm = torch.stack([p.grad.norm() for p in net.parameters() if p.grad is not None]).norm()
            if norm.isfinite() and norm > 0.5:
                for p in net.parameters():
                    assert p.grad is not None
                    p.grad *= 0.5 / norm
            before = scaler.get_scale()
            if norm.isfinite():
                scaler.step(steps)
            scaler.update()
            skipped += scaler.get_scale() < before
    assert 0 < training.state.skipped == skipped
    assert training.loss_scale.value == scaler.get_scale()
    for name, value in net.state_dict().items():
        torch.testing.assert_close(training.chosen()[name], value, rtol=1e-5, atol=1e-6)


class Overflow(torch.autograd.Function):
    """The identity, whose gradient is infinite."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad * math.inf


def planted(training: Any, batches: set[int]) -> None:
    """Makes the gradients of these batches infinite."""
    plain = training.batch_loss

    def loss(batch: Any) -> Tensor:
        value: Tensor = plain(batch)
        return Overflow.apply(value) if training.iteration in batches else value  # type: ignore[no-any-return]

    training.batch_loss = loss


@pytest.mark.parametrize("accumulate", [1, 2])
def test_an_overflow_skips_the_update_and_halves_the_scale(task_of: Make, accumulate: int) -> None:
    task = task_of(NET, epochs=1, batch_size=20, lr=0.01, accumulate=accumulate, **HALF)
    training = training_of(task)
    planted(training, {2})
    begin = training.loss_scale.value
    course: list[tuple[float, int, float]] = []
    step = training.optimizer_step

    def noted() -> None:
        before = torch.cat([p.detach().flatten() for p in training.parameters])
        step()
        after = torch.cat([p.detach().flatten() for p in training.parameters])
        course.append((training.loss_scale.value, training.state.skipped, float((after - before).norm())))

    training.optimizer_step = noted  # type: ignore[method-assign]
    fit(training)
    at = 2 if accumulate == 1 else 3  # the end of the group of batches that the third is in
    assert [skipped for _, skipped, _ in course] == [int(k >= at) for k in range(6)]
    assert [scale for scale, _, _ in course] == [begin if k < at else begin / 2 for k in range(6)]
    moved = [k for k, (_, _, moved) in enumerate(course) if moved]
    assert moved == [k for k in range(accumulate - 1, 6, accumulate) if k != at]
    assert training.state.updates == 6 // accumulate - 1
    assert all(p.isfinite().all() for p in training.parameters)
    (line,) = lines(task)
    assert (line["loss_scale"], line["skipped_updates"]) == (begin / 2, 1)


def test_an_overflow_at_the_lowest_scale_diverges_and_says_so(task_of: Make) -> None:
    training = training_of(task_of(NET, epochs=30, batch_size=60, **HALF))
    planted(training, set(range(1, 1000)))
    with pytest.raises(TrainingDiverged, match=r"fell to 1, its lowest, and 16 updates had been skipped"):
        fit(training)
    assert training.state.updates == 1
    assert all(p.isfinite().all() for p in training.parameters)


def test_a_loss_that_is_not_finite_is_left_out_of_the_mean(task_of: Make) -> None:
    task = task_of(NET, epochs=1, batch_size=60, **HALF)
    training = training_of(task)
    plain = training.batch_loss
    training.batch_loss = lambda batch: plain(batch) * (math.nan if training.iteration == 1 else 1)  # type: ignore[assignment]
    fit(training)
    (line,) = lines(task)
    assert line["loss"] == line["last_loss"] == training.state.first_loss
    assert line["skipped_updates"] == 1


def test_stopped_and_resumed_gives_the_same_bits(task_of: Make, tmp_path: Path) -> None:
    settings = HALF | {"epochs": 4, "batch_size": 50, "schedule": "cosine", "accumulate": 2, "clip": 0.1}
    net = {"simple_cnn": {"channels": 4, "hidden": 16, "batch_norm": True}}
    whole, stopped = (task_of(net, folder=tmp_path / name, **settings) for name in ("whole", "stopped"))
    state = same_bits_after_a_stop(whole, stopped, 2)
    assert state["loss_scale"]["_growth_tracker"] > 0
    record = read_record(RunFolder(whole.folder))
    assert record.training.skipped_updates == lines(whole)[-1]["skipped_updates"]


def test_a_first_loss_that_is_infinite_is_no_figure_of_the_record(
    task_of: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its update is skipped, and the training ends as any other."""
    honest, calls = BatchLoss.__call__, []

    def overflowing(self: BatchLoss, batch: Any) -> Tensor:
        calls.append(batch)
        return honest(self, batch) * (math.inf if len(calls) == 1 else 1)

    monkeypatch.setattr(BatchLoss, "__call__", overflowing)
    task = task_of(NET, **HALF)
    stages.carry_out(task)
    record = read_record(RunFolder(task.folder))
    assert record.status == "finished", record.message
    assert record.training is not None
    assert (record.training.first_loss, record.training.skipped_updates) == (None, 1)


def test_a_checkpoint_keeps_the_scale(task_of: Make) -> None:
    task = task_of(NET, epochs=2, batch_size=60, **HALF)
    training = training_of(task)
    planted(training, {1})
    training.until = 1
    fit(training)
    state, _ = RunFolder(task.folder).load_checkpoint()
    assert state is not None
    resumed = training_of(task)
    resumed.checkpointer.restore(state)
    assert resumed.loss_scale.value == training.loss_scale.value == 2.0**15
    assert resumed.state.skipped == 1


def test_a_checkpoint_without_a_scale_is_read(task_of: Make) -> None:
    training = training_of(task_of(NET, epochs=1))
    saved = training.checkpointer.content()
    assert saved.pop("loss_scale") is None
    training.checkpointer.restore(saved)


def test_it_learns_and_is_evaluated_in_float32(task_of: Make) -> None:
    task = task_of("simple_cnn", epochs=10, precision="float16")
    stages.carry_out(task)
    assert weights(task)["0.weight"].dtype == torch.float32
    assert lines(task)[-1]["validation"]["accuracy"] > 0.8


def test_an_objective_that_writes_its_gradients_is_refused(task_of: Make) -> None:
    training = training_of(task_of("linear", objective="by_hand", precision="float16"))
    with pytest.raises(ConfigError, match="float16 scales the loss"):
        fit(training)
    fit(training_of(task_of("linear", objective="by_hand", precision="bfloat16", epochs=1)))


@pytest.mark.parametrize(
    ("device", "in_hardware", "expected"),
    [("cpu", True, "bfloat16"), ("cpu", False, None), ("cuda", True, "bfloat16"), ("cuda", False, "float16")],
)
def test_auto_considers_float16_on_a_gpu_without_bfloat16_alone(
    device: str, in_hardware: bool, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compute_choice, "bfloat16_in_hardware", lambda device: in_hardware)
    assert compute_choice.narrow_precision(device) == expected


def overflowing_in_one(group: ProcessGroup, task: Task) -> list[tuple[int, float, float]]:
    """After each batch the skipped updates, the scale, and a sum of the weights; the gradient of the third
    batch is infinite in the last process alone."""
    training = training_of(task, group=group)
    if group.place.rank == group.place.world - 1:
        planted(training, {2})
    training.model.train()
    course = []
    for batch in training.batches():
        loop_step(training, batch)
        total = sum(float(p.detach().double().sum()) for p in training.parameters)
        course.append((training.state.skipped, training.loss_scale.value, total))
    return course


@pytest.mark.slow
def test_all_processes_skip_an_update_or_none(task_of: Make) -> None:
    first, second = each(2, in_group, overflowing_in_one, task_of(NET, batch_size=20, **HALF))
    assert first == second
    assert [skipped for skipped, _, _ in first] == [0, 0, 1, 1, 1, 1]
    assert [scale for _, scale, _ in first] == [2.0**16] * 2 + [2.0**15] * 4
    assert first[1][2] == first[2][2] != first[3][2]
