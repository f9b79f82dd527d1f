from __future__ import annotations

import json
import math
import signal
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from trainings import lines, training_of, weights

from stresslens.core.data import Data
from stresslens.core.errors import ConfigError, Stopped, TrainingDiverged
from stresslens.core.files import read_json
from stresslens.core.run_folder import RunFolder
from stresslens.evaluation.record import Position
from stresslens.evaluation.saved_model import open_model
from stresslens.study import stages
from stresslens.study.failures import succeeded
from stresslens.training.loop import Training, fit
from stresslens.training.setup import build_model
from stresslens.training.task import Task

Make = Callable[..., Task]


def test_equals_the_loop_written_out(task_of: Make) -> None:
    """Ten epochs of Adam on shuffled batches, step by step, with the notebook's own lines."""
    task = task_of({"mlp": {"widths": [16]}}, epochs=10, batch_size=50, lr=0.01, select="last", watch=[])
    stages.carry_out(task)

    data = task.data
    assert data is not None
    torch.manual_seed(task.seed)
    model = build_model(task, data)
    net = model.net
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01, fused=True)
    for epoch in range(10):
        for batch in data.train.batches(50, seed=task.seed, epoch=epoch):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(batch.x), batch.y).backward()
            optimizer.step()
    for name, value in net.state_dict().items():
        torch.testing.assert_close(weights(task)[name], value, rtol=0, atol=0)


def test_same_seed_same_bits_other_seed_other_weights(task_of: Make, tmp_path: Path) -> None:
    first, second, other = (
        task_of("linear", folder=tmp_path / name, seed=seed) for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    for task in (first, second, other):
        stages.carry_out(task)
    assert weights(first)["1.weight"].equal(weights(second)["1.weight"])
    assert lines(first) == lines(second)
    assert not weights(first)["1.weight"].equal(weights(other)["1.weight"])


def test_a_flipped_bit_of_the_weights_is_refused(task_of: Make) -> None:
    task = task_of("linear", epochs=1)
    stages.carry_out(task)
    content = bytearray((task.folder / "model.safetensors").read_bytes())
    content[-9] ^= 0x40
    (task.folder / "model.safetensors").write_bytes(content)
    with pytest.raises(ConfigError, match="not the file that the training wrote"):
        open_model(RunFolder(task.folder))


def test_a_log_that_lost_lines_is_told_when_training_goes_on(task_of: Make) -> None:
    task = task_of("linear", epochs=4)
    training = training_of(task)
    training.until = 3
    fit(training)
    folder = RunFolder(task.folder)
    folder.metrics.write_bytes(folder.metrics.read_bytes()[:-5])
    resumed = training_of(task)
    state, _ = folder.load_checkpoint()
    assert state is not None
    resumed.checkpointer.restore(state)
    assert "metrics.jsonl has lost its last 5 of" in str(resumed.checkpointer.cut_logs())
    fit(resumed)
    assert [line["epoch"] for line in lines(task)] == [1, 2, 4]


def test_clipping_bounds_the_step(task_of: Make) -> None:
    task = task_of(
        "linear", epochs=1, batch_size="full", optimizer="sgd", lr=1.0, clip=0.01, watch=[], select="last"
    )
    training = training_of(task)
    before = [p.detach().clone() for p in training.parameters]
    fit(training)
    moved = torch.cat([(p.detach() - b).flatten() for p, b in zip(training.parameters, before)])
    assert float(moved.norm()) == pytest.approx(0.01, rel=1e-4)


def test_chosen_epoch_is_the_best_on_validation(task_of: Make) -> None:
    task = task_of({"mlp": {"widths": [8]}}, epochs=12, lr=0.05, select="accuracy")
    record = stages.carry_out(task)
    logged = lines(task)
    best = max(logged, key=lambda line: (line["validation"]["accuracy"], -line["validation"]["loss"]))
    assert record.training.chosen_epoch == best["epoch"]
    assert record.scores["validation"]["accuracy"].value == pytest.approx(best["validation"]["accuracy"])


def test_test_split_is_read_once_and_watching_it_is_counted(task_of: Make, tmp_path: Path) -> None:
    quiet = stages.carry_out(task_of("linear", folder=tmp_path / "quiet"))
    assert (quiet.reads_of_test, quiet.watched_test) == (1, False)
    watched = stages.carry_out(task_of("linear", folder=tmp_path / "watched", watch=["validation", "test"]))
    assert (watched.reads_of_test, watched.watched_test) == (4, True)
    assert quiet.training.chosen_epoch == watched.training.chosen_epoch


@pytest.mark.parametrize("rare", [1, 3], ids=["every epoch", "every third"])
def test_the_loss_before_any_update_is_recorded(task_of: Make, rare: int, tmp_path: Path) -> None:
    """Of a full batch it is the loss of the first epoch, however rarely epochs are logged."""
    task = task_of("linear", folder=tmp_path / "often", batch_size="full", epochs=3)
    often, first = stages.carry_out(task), lines(task)[0]["loss"]
    task = task_of("linear", folder=tmp_path / "rare", batch_size="full", epochs=3, log_every=rare)
    record = stages.carry_out(task)
    assert record.training.first_loss == often.training.first_loss == first


def test_labs_stopping_rule(task_of: Make) -> None:
    task = task_of(
        "linear",
        epochs=5000,
        batch_size=50,
        optimizer="sgd",
        lr=0.01,
        stop={"loss_change": 1e-4},
        watch=[],
        select="last",
        shuffle=False,
    )
    record = stages.carry_out(task)
    last = [line["last_loss"] for line in lines(task)]
    changes = [abs(b - a) for a, b in pairwise(last)]
    assert record.training.epochs == len(last) < 5000
    assert changes[-1] < 1e-4 <= min(changes[:-1])
    assert "less than 0.0001" in record.training.stopped


def test_patience(task_of: Make) -> None:
    task = task_of("linear", epochs=500, lr=0.5, stop={"patience": 4}, select="loss")
    record = stages.carry_out(task)
    losses = [line["validation"]["loss"] for line in lines(task)]
    assert record.training.epochs == len(losses) == losses.index(min(losses)) + 1 + 4


def test_bookkeeping_is_as_rare_as_asked(task_of: Make) -> None:
    task = task_of("linear", epochs=25, log_every=10, evaluate_every=5)
    stages.carry_out(task)
    assert [(line["epoch"], "validation" in line) for line in lines(task)] == [
        (5, True),
        (10, True),
        (15, True),
        (20, True),
        (25, True),
    ]
    task = task_of("linear", epochs=25, log_every=10, watch=[], folder=task.folder.parent / "seed-9")
    stages.carry_out(task)
    assert [line["epoch"] for line in lines(task)] == [10, 20, 25]


def test_schedule_and_augmentations_reach_the_loop(task_of: Make) -> None:
    task = task_of(
        "linear",
        epochs=6,
        lr=0.1,
        schedule="cosine",
        augment=["flip", {"crop": {"padding": 1}}, {"cutout": {"size": 2}}, "mixup"],
    )
    stages.carry_out(task)
    rates = [line["lr"] for line in lines(task)]
    assert rates == pytest.approx(
        [0.1 * (1 + math.cos(math.pi * epoch / 6)) / 2 for epoch in range(1, 7)], abs=1e-9
    )


@pytest.mark.parametrize("precision", ["bfloat16", "float64"])
def test_other_precisions_learn(task_of: Make, precision: str) -> None:
    record = stages.carry_out(task_of({"mlp": {"widths": [32]}}, epochs=30, lr=0.01, precision=precision))
    assert record.scores["test"]["accuracy"].value > 0.7


def test_divergence_stops_names_the_images_and_keeps_good_weights(task_of: Make, small: Data) -> None:
    task = task_of("linear", epochs=50, batch_size=40, optimizer="sgd", loss="mse", lr=1e30, shuffle=False)
    with pytest.raises(
        TrainingDiverged, match=r"epoch 1, batch \d.*training images.*Lower train\.lr"
    ) as caught:
        succeeded(stages.carry_out(task))
    assert len(caught.value.images) == 40
    folder = RunFolder(task.folder)
    record = read_json(folder.record)
    assert record["status"] == "diverged"
    state, _ = folder.load_checkpoint()
    assert state is not None
    assert all(bool(torch.isfinite(value).all()) for value in state["net"].values())


def test_a_gradient_that_is_not_finite_is_caught_before_the_step(task_of: Make) -> None:
    training = training_of(task_of("linear", epochs=2, batch_size=40, optimizer="sgd"))
    before = [p.detach().clone() for p in training.parameters]

    def poisoned(loss: torch.Tensor) -> None:
        Training.backward(training, loss)
        weight = training.parameters[0]
        assert weight.grad is not None
        weight.grad[0, 0] = math.nan

    training.backward = poisoned  # type: ignore[method-assign]
    with pytest.raises(TrainingDiverged, match="a gradient is not finite"):
        fit(training)
    assert all(p.equal(b) for p, b in zip(training.parameters, before))


@pytest.mark.parametrize(
    "body",
    [
        "with torch.no_grad(): return F.cross_entropy(logits, y)",
        "return torch.tensor(F.cross_entropy(logits, y).item())",
        "return F.cross_entropy(logits.detach(), y)",
    ],
)
def test_a_loss_without_a_gradient_is_refused(task_of: Make, tmp_path: Path, body: str) -> None:
    file = tmp_path / "flat.py"
    file.write_text(f"import torch\nimport torch.nn.functional as F\n\ndef flat(logits, y):\n    {body}\n")
    training = training_of(task_of("linear", epochs=1, batch_size=40, loss=f"{file}:flat"))
    with pytest.raises(ConfigError, match=r"^the loss has no gradient: it was computed under torch.no_grad"):
        fit(training)


@pytest.mark.breadth(1)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_save_and_the_same_task_goes_on(task_of: Make, tmp_path: Path, number: int) -> None:
    options: dict[str, Any] = {
        "epochs": 6,
        "ema": 0.9,
        "schedule": "cosine",
        "augment": ["flip"],
        "batch_size": 30,
    }
    whole = task_of({"mlp": {"widths": [8]}}, folder=tmp_path / "whole", **options)
    stages.carry_out(whole)

    stopped = task_of({"mlp": {"widths": [8]}}, folder=tmp_path / "stopped", **options)

    calls = 0
    keep = Training.after_step

    def raise_signal_once(self: Training) -> None:
        nonlocal calls
        calls += 1
        if calls == 10:
            signal.raise_signal(number)
        keep(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Training, "after_step", raise_signal_once)
        with pytest.raises(Stopped) as caught:
            stages.carry_out(stopped)
    assert caught.value.exit_code == 128 + number
    assert read_json(stopped.folder / "record.json")["status"] == "stopped"
    record = stages.carry_out(stopped)
    assert record.resumed_from == [Position(epoch=2, step=2, processes=1)]
    assert (stopped.folder / "metrics.jsonl").read_bytes() == (whole.folder / "metrics.jsonl").read_bytes()
    assert (stopped.folder / "model.safetensors").read_bytes() == (
        whole.folder / "model.safetensors"
    ).read_bytes()


def test_a_signal_in_the_last_evaluation_is_not_lost(task_of: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    task = task_of("linear", epochs=2)
    end_epoch = Training.end_epoch

    def signalled(self: Training) -> None:
        end_epoch(self)
        if self.over and not self.caught:
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(Training, "end_epoch", signalled)
        with pytest.raises(Stopped, match="after 2 epochs"):
            stages.carry_out(task)
    assert stages.carry_out(task).status == "finished"
    assert [line["epoch"] for line in lines(task)] == [1, 2]


def test_finished_stages_are_skipped_and_another_configuration_is_refused(task_of: Make) -> None:
    task = task_of("linear")
    stages.carry_out(task)
    stamp = (task.folder / "model.safetensors").stat().st_mtime_ns
    stages.carry_out(task)
    assert (task.folder / "model.safetensors").stat().st_mtime_ns == stamp
    with pytest.raises(ConfigError, match=r"train\.epochs: 3 there, 4 now.*\n.*--out"):
        task_of("linear", epochs=4)


def test_other_data_in_the_same_folder_is_refused(task_of: Make, small: Data) -> None:
    task = task_of("linear")
    stages.carry_out(task)
    images = small.train.images.clone()
    images[0, 0, 0, 0] += 1
    changed = replace(small, train=replace(small.train, images=images))
    with pytest.raises(ConfigError, match="the data set has changed"):
        succeeded(stages.carry_out(replace(task, data=changed)))


def test_truncated_checkpoint_falls_back_to_the_previous_and_says_so(task_of: Make, tmp_path: Path) -> None:
    options: dict[str, Any] = {"epochs": 4, "batch_size": 30}
    whole = task_of("linear", folder=tmp_path / "whole", **options)
    stages.carry_out(whole)
    cut = task_of("linear", folder=tmp_path / "cut", checkpoint_seconds=1e-6, **options)
    stages.carry_out(cut)
    folder = RunFolder(cut.folder)
    content = folder.checkpoint.read_bytes()
    folder.checkpoint.write_bytes(content[: len(content) // 2])
    record = read_json(folder.record)
    record["stages"] = {}
    folder.record.write_text(json.dumps(record))
    record = stages.carry_out(cut)
    assert "checkpoint.pt could not be read" in record.findings[0].message
    assert weights(cut)["1.weight"].equal(weights(whole)["1.weight"])
    assert (cut.folder / "metrics.jsonl").read_bytes() == (whole.folder / "metrics.jsonl").read_bytes()


def test_saved_model_gives_the_saved_predictions(task_of: Make) -> None:
    task = task_of({"simple_cnn": {"channels": 4, "hidden": 16, "batch_norm": True}})
    record = stages.carry_out(task)
    model = open_model(RunFolder(task.folder)).eval()
    assert task.data is not None
    assert task.data.test is not None
    with torch.no_grad():
        logits = model(task.data.test.floats(task.data.test.images))
    accuracy = float((logits.argmax(1) == task.data.test.labels).float().mean())
    assert accuracy == pytest.approx(record.scores["test"]["accuracy"].value)


def test_global_random_state_and_threads_are_as_before(task_of: Make) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    stages.carry_out(task_of("linear"))
    assert torch.rand(3).equal(expected)
    assert torch.get_num_threads() == 1
