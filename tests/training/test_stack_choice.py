"""Which runs train in one program: asked for, refused or measured."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stresslens.core.errors import ConfigError
from stresslens.study import stages
from stresslens.training import stack_choice
from stresslens.training.autotune import autotune
from stresslens.training.task import Task

Make = Callable[..., Task]
MLP = {"mlp": {"widths": [12]}}


@pytest.mark.parametrize(
    ("model", "train", "why"),
    [
        ("simple_cnn", {}, r"layers that cannot be computed for several runs at once \(Conv2d, MaxPool2d\)"),
        ({"simple_cnn": {"batch_norm": True}}, {}, "BatchNorm2d"),
        ("linear", {"epochs": 0}, "no training steps"),
        ("linear", {"precision": "bfloat16"}, "its precision is bfloat16"),
        ("linear", {"objective": "noisy"}, "its objective is not supervised"),
        ("linear", {"fine_tune": {"head_lr_scale": 2.0}}, r"train\.fine_tune"),
    ],
    ids=str,
)
def test_true_is_refused_with_the_reason_and_auto_says_no(
    task_of: Make, tmp_path: Path, model: Any, train: dict[str, Any], why: str
) -> None:
    with pytest.raises(ConfigError, match=why):
        task_of(model, stack=True, **train)
    runs = [task_of(model, stack="auto", folder=tmp_path / str(k), seed=k, **train) for k in range(2)]
    assert [task.config.train.stack for task in autotune(runs, most_threads=1)] == [False, False]


def test_auto_is_measured_once_and_recorded(
    task_of: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tasks(*seeds: int) -> list[Task]:
        made = [task_of("linear", folder=tmp_path / str(k), seed=k) for k in seeds]
        open_ = [replace(each.config, train=replace(each.config.train, stack="auto")) for each in made]
        return [replace(each, config=config) for each, config in zip(made, open_)]

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("STRESSLENS_MEASURE", raising=False)
    measured: list[int] = []

    def gains(usual: Callable[[], None], other: Callable[[], None], clock: Any) -> list[float]:
        usual()
        other()
        measured.append(1)
        return [2.0] * 9

    monkeypatch.setattr(stack_choice.compute_choice, "gains_in_pairs", gains)
    first = autotune(tasks(0, 1, 2), most_threads=1)
    assert all(task.config.train.stack is True for task in first)
    assert first[0].plan.configuration["train"]["stack"] is True
    assert autotune(tasks(0, 1, 2), most_threads=1)[0].config.train.stack is True
    assert len(measured) == 1
    monkeypatch.setenv("STRESSLENS_MEASURE", "0")
    assert autotune(tasks(3, 4), most_threads=1)[0].config.train.stack is False
    assert autotune(tasks(5), most_threads=1)[0].config.train.stack is False


@pytest.mark.parametrize(
    "train", [{"lr": 1e30}, {"schedule": "one_cycle"}, {"schedule": {"polynomial": {"power": 2}}}], ids=str
)
def test_runs_that_diverge_or_are_short_are_measured_like_others(
    task_of: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, train: dict[str, Any]
) -> None:
    """Timing repeats steps for much longer than these trainings last."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("STRESSLENS_MEASURE", raising=False)
    rated: list[list[float]] = []
    monkeypatch.setattr(
        stack_choice.compute_choice, "clear", lambda ratios, *gain: bool(rated.append([*ratios])) or True
    )
    made = [
        task_of("linear", folder=tmp_path / str(k), seed=k, epochs=1, optimizer="sgd", **train)
        for k in range(3)
    ]
    open_ = [replace(each.config, train=replace(each.config.train, stack="auto")) for each in made]
    tasks = autotune([replace(each, config=config) for each, config in zip(made, open_)], most_threads=1)
    assert all(task.config.train.stack is True for task in tasks)
    assert rated
    assert all(math.isfinite(ratio) for ratio in rated[-1])


def test_a_loss_that_fails_is_left_to_the_training_and_nothing_is_kept(
    task_of: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("STRESSLENS_MEASURE", raising=False)
    loss = tmp_path / "own.py"
    loss.write_text("def own(logits, y):\n    return logits\n")
    tasks = [
        task_of("linear", folder=tmp_path / str(k), seed=k, stack="auto", loss=f"{loss}:own")
        for k in range(2)
    ]
    assert all(task.config.train.stack is False for task in tasks)
    open_ = [replace(each.config, train=replace(each.config.train, stack="auto")) for each in tasks]
    decided = autotune([replace(each, config=config) for each, config in zip(tasks, open_)], most_threads=1)
    assert all(task.config.train.stack is False for task in decided)
    assert not [*(tmp_path / "cache").rglob("*.json")]


def test_a_setting_that_an_earlier_version_did_not_have_is_told_by_its_default(task_of: Make) -> None:
    stages.carry_out(task_of(MLP, epochs=1))
    with pytest.raises(ConfigError, match=r"train\.stack: False there, True now"):
        task_of(MLP, epochs=1, stack=True)
