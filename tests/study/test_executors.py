"""Places that carry out tasks, several at a time."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from stresslens.core.errors import StresslensError
from stresslens.study import executors
from stresslens.training.task import Task


def test_a_place_takes_the_next_task_only_when_it_has_told_the_last(
    tmp_path: Path, task_of: Callable[..., Task]
) -> None:
    events: list[str] = []

    def tasks() -> Any:
        for number in range(4):
            events.append(f"take {number}")
            yield task_of(folder=tmp_path / str(number))

    def submit(group: tuple[Task, ...]) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result([{"folder": group[0].folder.name}])
        return future

    def told(task: Task, outcome: Any) -> None:
        events.append(f"told {task.folder.name} {type(outcome).__name__}")

    executors.Executor(2, 1, submit).carry_out(
        tasks(), told, lambda task: lambda position, epochs, done: None
    )
    assert events[:2] == ["take 0", "take 1"]
    assert [event for event in events if event.startswith("told")] == [
        "told 0 dict",
        "told 1 dict",
        "told 2 dict",
        "told 3 dict",
    ]
    assert events.index("take 2") > events.index("told 0 dict")

    def failing(group: tuple[Task, ...]) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result([StresslensError("the disk is full")])
        return future

    with pytest.raises(StresslensError, match="the disk is full"):
        executors.Executor(2, 1, failing).carry_out(
            tasks(), told, lambda task: lambda position, epochs, done: None
        )


@pytest.mark.parametrize(
    ("at_once", "tasks", "started"), [(2, 2, 1), (2, 11, 1), (2, 1, 0), (1, 5, 0), (2, 0, 0)]
)
def test_workers_start_early_only_where_several_tasks_need_them(
    at_once: int, tasks: int, started: int
) -> None:
    starts: list[str] = []
    executor = executors.Executor(at_once, 1, lambda task: Future(), start=lambda: starts.append("start"))
    executor.expect(tasks)
    assert len(starts) == started


def test_the_workers_of_this_machine_start_before_the_first_task() -> None:
    with executors.open_executor("local", 2) as executor:
        before = multiprocessing.active_children()
        executor.expect(2)
        assert len(multiprocessing.active_children()) == len(before) + 2
