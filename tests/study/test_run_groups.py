"""Runs of a study that train in one program."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stresslens.config import study_file
from stresslens.core.errors import ConfigError, Stopped
from stresslens.core.run_folder import RunFolder
from stresslens.evaluation.record import read_record
from stresslens.study import pipeline, stages
from stresslens.study.run_groups import carry_out_together, in_groups
from stresslens.training.stack import Stack
from stresslens.training.task import Task

Make = Callable[..., Task]


def group_of(task_of: Make, base: Path, *changes: dict[str, Any], **train: Any) -> tuple[Task, ...]:
    settings = {"stack": True, "batch_size": 32, **train}
    return tuple(
        task_of("linear", folder=base / f"seed-{k}", seed=k, **{**settings, **change})
        for k, change in enumerate(changes)
    )


def silent(task: Task) -> Any:
    return lambda position, epochs, done: None


def kept(task: Task) -> tuple[bytes, bytes]:
    folder = RunFolder(task.folder)
    return folder.weights.read_bytes(), folder.metrics.read_bytes()


def test_a_group_has_the_same_bits_as_its_runs_alone(task_of: Make, tmp_path: Path) -> None:
    together = group_of(task_of, tmp_path / "a", {}, {"lr": 0.01}, {"epochs": 2})
    records = [*carry_out_together(together, silent)]
    assert [record.status for record in records] == ["finished"] * 3
    assert [record.training.epochs for record in records] == [3, 3, 2]
    assert [record.training.stacked_runs for record in records] == [3, 3, 3]
    assert not any(record.resumed_from for record in records)
    for task in group_of(task_of, tmp_path / "b", {}, {"lr": 0.01}, {"epochs": 2}):
        stages.carry_out(task)
        assert kept(task) == kept(together[task.seed])
    again = [*carry_out_together(together, silent)]
    assert [record.scores for record in again] == [record.scores for record in records]


def test_one_that_diverges_is_recorded_and_the_others_finish(task_of: Make, tmp_path: Path) -> None:
    tasks = group_of(task_of, tmp_path, {}, {"lr": 3e38}, {}, optimizer="sgd")
    records = [*carry_out_together(tasks, silent)]
    assert [record.status for record in records] == ["finished", "diverged", "finished"]
    assert records[1].failures["training"].is_divergence


@pytest.mark.parametrize("kill", [False, True])
def test_stopped_or_killed_the_group_goes_on_with_the_same_bits(
    task_of: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kill: bool
) -> None:
    whole = group_of(task_of, tmp_path / "whole", {}, {}, {})
    [*carry_out_together(whole, silent)]
    tasks = group_of(task_of, tmp_path / "stopped", {}, {}, {})
    count, steps = Stack.count, []

    class Killed(BaseException):
        pass

    def counting(self: Stack, batch: Any) -> None:
        count(self, batch)
        steps.append(1)
        if len(steps) == 5:
            if kill:  # after the checkpoint of one run alone
                self.trainings[0].save()
                raise Killed
            os.kill(os.getpid(), signal.SIGTERM)

    assert threading.current_thread() is threading.main_thread()
    monkeypatch.setattr(Stack, "count", counting)
    with pytest.raises(Killed if kill else Stopped):
        [*carry_out_together(tasks, silent)]
    if not kill:
        assert {read_record(RunFolder(task.folder)).status for task in tasks} == {"stopped"}
    records = [*carry_out_together(tasks, silent)]
    assert [len(record.resumed_from) for record in records] == ([1, 0, 0] if kill else [1, 1, 1])
    for task, other in zip(tasks, whole):
        assert kept(task) == kept(other)


def test_groups_share_a_step_and_are_divided_among_workers(task_of: Make, tmp_path: Path) -> None:
    tasks = [
        *group_of(task_of, tmp_path / "a", {}, {"lr": 0.5}, {"optimizer": "sgd"}, {}),
        *group_of(task_of, tmp_path / "b", {}, {}, batch_size=16),
        task_of("linear", folder=tmp_path / "c"),
        task_of("linear", folder=tmp_path / "d"),
    ]
    names = [[task.folder.relative_to(tmp_path).parts[0] for task in group] for group in in_groups(tasks, 1)]
    assert names == [["a"] * 4, ["b"] * 2, ["c"], ["d"]]
    assert [len(group) for group in in_groups(tasks, 2)] == [2, 2, 1, 1, 1, 1]


@pytest.mark.parametrize(
    ("model", "train", "said"),
    [
        (
            "simple_cnn",
            {"stack": True},
            "its net has layers that cannot be computed for several runs at once",
        ),
        ("linear", {"stack": True, "precision": "float16"}, "its precision is float16"),
        ("linear", {"recompute": True}, "no sequence of blocks or layers"),
        ("linear", {"recompute": True, "compile": True}, "take one of the two"),
    ],
)
def test_what_a_net_cannot_do_is_refused_before_anything_is_trained(
    model: str, train: dict[str, Any], said: str, tmp_path: Path
) -> None:
    values = {"study": "s", "model": model, "runs": {"a": {}, "b": {"train": train}}, "train": {"epochs": 1}}
    with pytest.raises(ConfigError, match=said):
        pipeline.run(study_file.expand_study(values, name="s", base=tmp_path), out=tmp_path)
    assert not list(tmp_path.rglob("record.json"))
