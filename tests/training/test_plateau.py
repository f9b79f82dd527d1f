"""The schedule that is told the figures on validation, in a training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from trainings import lines, same_bits_after_a_stop

from stresslens.core.errors import ConfigError
from stresslens.study import stages
from stresslens.study.failures import succeeded
from stresslens.training.task import Task

Make = Callable[..., Task]
PLATEAU = {"plateau": {"factor": 0.5, "patience": 0, "threshold": 0.05}}


def test_the_rate_falls_where_validation_no_longer_improves(task_of: Make) -> None:
    task = task_of("linear", epochs=12, lr=0.1, schedule=PLATEAU)
    stages.carry_out(task)
    best, rate, halved = float("inf"), 0.1, 0
    for line in lines(task):
        better = line["validation"]["loss"] < best * (1 - 0.05)
        best = line["validation"]["loss"] if better else best
        rate, halved = (rate, halved) if better else (rate / 2, halved + 1)
        assert line["lr"] == pytest.approx(rate)
    assert halved > 1


def test_a_killed_training_goes_on_with_the_same_bits(task_of: Make, tmp_path: Path) -> None:
    options = {"epochs": 8, "lr": 0.1, "schedule": PLATEAU}
    whole, killed = (task_of("linear", folder=tmp_path / name / "seed-0", **options) for name in "ab")
    same_bits_after_a_stop(whole, killed, 5)


def test_without_validation_it_is_refused(task_of: Make) -> None:
    task = task_of("linear", schedule="plateau", watch=["train"], select="last")
    with pytest.raises(ConfigError, match=r"train\.schedule"):
        succeeded(stages.carry_out(task))
    assert task.data is not None
    task = task_of("linear", schedule="plateau", select="last")
    with pytest.raises(ConfigError, match="needs the validation split"):
        succeeded(stages.carry_out(replace(task, data=replace(task.data, validation=None))))
