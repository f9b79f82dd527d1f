"""Which epoch is kept, the replay of batches, going on after a kill, and the finding of
catastrophic overfitting."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from stresslens.config import registry
from stresslens.core.data import Data, Split
from stresslens.core.errors import ConfigError, Problems
from stresslens.core.run_folder import RunFolder
from stresslens.evaluation.record import Position
from stresslens.study import stages
from stresslens.study.failures import succeeded
from stresslens.training import best_epoch, catastrophic_overfitting
from stresslens.training.autotune import compute_config
from stresslens.training.epoch_log import EpochMetrics
from stresslens.training.loop import Training
from stresslens.training.setup import build_model
from stresslens.training.task import Task

Make = Callable[..., Task]
HARDENED: dict[str, Any] = {
    "adversarial": {
        "adversarial": {"eps": 0.1, "attack": {"pgd": {"steps": 2}}, "share": 0.5, "chance": 0.7, "ramp": 0.4}
    },
    "least likely": {
        "adversarial": {"eps": 0.1, "attack": {"fgsm": {"random_start": True}}, "target": "least_likely"}
    },
    "free": {"free": {"eps": 0.1}},
    "trades": {"trades": {"eps": 0.1, "steps": 2}},
}


def lines(task: Task) -> list[dict[str, Any]]:
    return RunFolder(task.folder).read_lines(RunFolder(task.folder).metrics)


def training_of(task: Task) -> Training:
    assert task.data is not None
    task.folder.mkdir(parents=True, exist_ok=True)
    way, folder = compute_config(task), RunFolder(task.folder)
    torch.manual_seed(task.seed)
    model = build_model(task, task.data)
    return Training(
        model,
        task.data,
        task.config.train,
        compute=way,
        seed=0,
        folder=folder,
        base=task.base,
        show=lambda *_: None,
    )


@pytest.mark.breadth(1)
@pytest.mark.parametrize("objective", HARDENED.values(), ids=HARDENED.keys())
def test_the_epoch_of_the_highest_robust_accuracy_is_kept(task_of: Make, objective: Any) -> None:
    task = task_of({"mlp": {"widths": [16]}}, epochs=6, lr=0.02, objective=objective)
    record = stages.carry_out(task)
    seen = [line["validation"] for line in lines(task)]
    assert all(0 <= epoch["robust"] <= epoch["accuracy"] for epoch in seen)
    assert len({epoch["robust"] for epoch in seen}) > 1
    best = max(range(6), key=lambda epoch: (seen[epoch]["robust"], seen[epoch]["accuracy"], -epoch))
    assert record.training.chosen_epoch == best + 1
    assert record.training.select == "robust"


def test_robust_accuracy_of_a_linear_model_is_the_share_of_margins_beyond_the_radius() -> None:
    torch.manual_seed(0)
    x = 0.4 + 0.2 * torch.rand(700, 1, 4, 5)
    net = nn.Sequential(nn.Flatten(), nn.Linear(20, 2, bias=False))
    difference = net[1].weight[0] - net[1].weight[1]
    y = (x.flatten(1) @ difference < 0.5 * difference.sum()).long()
    net[1].bias = nn.Parameter(torch.stack([-0.5 * difference.sum(), torch.zeros(())]).detach())
    margin = (net(x)[:, 0] - net(x)[:, 1]) * (1 - 2 * y)
    objective = registry.resolve("objectives", {"adversarial": {"eps": 0.01}})
    rows = best_epoch.balanced_subset(y, best_epoch.IMAGES, seed=0)
    expected = float((margin > 0.01 * difference.abs().sum())[rows].double().mean())
    assert 0.2 < expected < 0.9
    assert best_epoch.robust_accuracy(objective, Split(x, y, 1.0))(net) == pytest.approx(
        expected, abs=1.5 / len(rows)
    )


def test_patience_counts_robust_accuracy(task_of: Make) -> None:
    objective = {"adversarial": {"eps": 0.1, "attack": "fgsm"}}
    task = task_of("linear", epochs=200, lr=0.3, stop={"patience": 3}, objective=objective)
    record = stages.carry_out(task)
    seen = [(line["validation"]["robust"], line["validation"]["accuracy"]) for line in lines(task)]
    assert record.training.stopped == "no better robust accuracy on validation in 3 evaluations"
    assert len(seen) == seen.index(max(seen)) + 1 + 3


def test_rules_name_the_ways_out(task_of: Make, small: Data, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError,
        match=r"objective with a norm and a radius.*supervised does not have; set train\.objective",
    ):
        succeeded(stages.carry_out(task_of("linear", select="robust")))
    with pytest.raises(Problems, match="select: robust needs validation among the watched splits"):
        task_of("linear", select="robust", objective="trades", watch=[])
    without = replace(small, validation=None)
    with pytest.raises(ConfigError, match="needs the validation split"):
        succeeded(stages.carry_out(task_of("linear", select="robust", objective="trades", data=without)))
    with pytest.raises(ConfigError, match="did you mean 8/255"):
        training_of(task_of("linear", objective={"trades": {"eps": 8}}))
    alone = task_of("linear", objective="trades", data=replace(small, validation=None), epochs=1)
    assert stages.carry_out(alone).training.select == "last"


def test_every_batch_is_shown_so_many_times_in_a_row_also_after_going_on(task_of: Make) -> None:
    training = training_of(task_of("linear", batch_size=50, replay=3, watch=[], select="last"))
    assert training.steps_per_epoch == 9
    whole = [batch.places.tolist() for batch in training.batches()]
    assert [len(places) for places in whole] == [50] * 6 + [20] * 3
    assert all(whole[i] == whole[i - 1] for i in range(9) if i % 3)
    for step in range(9):
        training.state.step = step
        assert [batch.places.tolist() for batch in training.batches()] == whole[step:]
        assert training._step(torch.arange(2)).batch == step


def test_replay_counts_as_steps_of_training(task_of: Make) -> None:
    task = task_of(
        "linear", batch_size=40, replay=4, epochs=2, schedule="cosine", watch=[], select="last", lr=0.1
    )
    record = stages.carry_out(task)
    assert record.training.steps == 24
    assert lines(task)[-1]["lr"] == pytest.approx(0, abs=1e-9)
    assert lines(task)[0]["lr"] == pytest.approx(0.05)


class Killed(BaseException):
    pass


@pytest.mark.breadth(1)
@pytest.mark.parametrize("objective", HARDENED.values(), ids=HARDENED.keys())
@pytest.mark.parametrize("precision", ["float32", pytest.param("bfloat16", marks=pytest.mark.slow)])
def test_after_a_kill_the_same_bits(task_of: Make, tmp_path: Path, objective: Any, precision: str) -> None:
    """Killed three steps after a checkpoint that stands in the midst of an epoch and of a batch's
    showings."""
    options: dict[str, Any] = {
        "epochs": 3,
        "batch_size": 50,
        "ema": 0.8,
        "schedule": "cosine",
        "augment": ["flip", "mixup"],
    }
    options |= {"replay": 3, "objective": objective, "precision": precision, "lr": 0.01}
    if "free" not in objective:
        options["accumulate"] = 2
    model = {"simple_cnn": {"batch_norm": True, "channels": 4, "hidden": 8}}
    whole = task_of(model, folder=tmp_path / "whole" / "seed-0", **options)
    stages.carry_out(whole)

    killed = task_of(model, folder=tmp_path / "killed" / "seed-0", **options)
    steps = itertools.count(1)
    keep = Training.after_step

    def dying(self: Training) -> None:
        step = next(steps)
        keep(self)
        if step == 13:
            self.save()
        if step == 16:
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Training, "after_step", dying)
        with pytest.raises(Killed):
            stages.carry_out(killed)
    assert stages.carry_out(killed).resumed_from == [Position(epoch=1, step=4, processes=1)]
    for name in ("metrics.jsonl", "model.safetensors"):
        assert (killed.folder / name).read_bytes() == (whole.folder / name).read_bytes(), name
    states = [torch.load(task.folder / "checkpoint.pt", weights_only=True) for task in (whole, killed)]
    assert states[0]["objective"].keys() == states[1]["objective"].keys()
    assert all(value.equal(states[1]["objective"][name]) for name, value in states[0]["objective"].items())


# --- catastrophic overfitting -------------------------------------------------------------------------------


def epoch(number: int, attack: float, guard: float, n: int = 128) -> EpochMetrics:
    figures = {"attack_accuracy": attack, "guard_accuracy": guard, "guarded": n, "radius": 0.1}
    return EpochMetrics(epoch=number, objective=figures)


def test_a_fall_of_the_guards_accuracy_alone_is_told_with_its_epoch_and_what_to_do() -> None:
    (found,) = catastrophic_overfitting.findings(
        [epoch(1, 0.3, 0.28), epoch(2, 0.4, 0.36), epoch(3, 0.8, 0.01), epoch(4, 0.9, 0.0)]
    )
    assert found.kind == catastrophic_overfitting.KIND
    assert found.message.startswith("in epoch 4 the model classifies 90% of 128 training images correctly")
    assert "and 0% under PGD in the same ball, of radius 0.1 (best under PGD: 36% in epoch 2" in found.message
    assert "in 2 of the 4 logged epochs, first in 3)" in found.message
    assert "random_start" in found.message


@pytest.mark.parametrize(
    "sound",
    [
        [epoch(1, 0.1, 0.1), epoch(2, 0.5, 0.3), epoch(3, 0.6, 0.35)],
        [epoch(1, 0.9, 0.85), epoch(2, 0.1, 0.08)],  # both fall: training is lost, but not to the attack
        [epoch(1, 0.5, 0.2, n=16)],  # 8 against 3 images of 16
        [EpochMetrics(epoch=1, loss=2.0)],
        [],
    ],
    ids=["rising", "both fall", "few images", "not watched", "nothing"],
)
def test_what_is_sound_is_left_alone(sound: list[EpochMetrics]) -> None:
    assert catastrophic_overfitting.findings(sound) == []


@pytest.mark.slow
def test_single_steps_at_a_large_radius_are_found_out_and_pgd_is_not(task_of: Make, tmp_path: Path) -> None:
    from stresslens.plugins.datasets.digits import digits

    cnn = {"simple_cnn": {"channels": 8, "hidden": 32}}
    kinds = {}
    for name, attack, eps in (("fgsm", "fgsm", 0.3), ("pgd", {"pgd": {"steps": 7}}, 0.2)):
        objective = {"adversarial": {"attack": attack, "eps": eps}}
        task = task_of(
            cnn,
            folder=tmp_path / name,
            epochs=18,
            lr=0.005,
            objective=objective,
            data=digits(),
            watch=[],
            select="last",
        )
        kinds[name] = [found.kind for found in stages.carry_out(task).findings]
        last = lines(task)[-1]["objective"]
        assert last["attack_accuracy"] > 0.25  # it has learned something
    assert kinds == {"fgsm": [catastrophic_overfitting.KIND], "pgd": []}


@pytest.mark.slow
@pytest.mark.skipif("STRESSLENS_DATA" not in os.environ, reason="needs MNIST under STRESSLENS_DATA")
def test_textbook_collapse_on_mnist(task_of: Make) -> None:
    """FGSM without a random start: within a few epochs nearly all images withstand it, and none PGD-5."""
    from stresslens.plugins.datasets.mnist import mnist

    objective = {"adversarial": {"attack": "fgsm", "eps": 0.2}}
    options: dict[str, Any] = {
        "epochs": 10,
        "lr": 0.003,
        "objective": objective,
        "watch": [],
        "select": "last",
    }
    task = task_of(
        {"simple_cnn": {"channels": 16, "hidden": 64}}, data=mnist(validation=1000, subset=6000), **options
    )
    assert [found.kind for found in stages.carry_out(task).findings] == [catastrophic_overfitting.KIND]
    last = lines(task)[-1]["objective"]
    assert last["attack_accuracy"] > 0.75
    assert last["guard_accuracy"] < 0.1
