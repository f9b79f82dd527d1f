"""An error keeps its class, its message and what it carries in a copy, in another process, and under
another message."""

from __future__ import annotations

import pickle
from copy import copy
from typing import Any

import pytest

from stresslens.core.errors import (
    ConfigError,
    Problem,
    Problems,
    SizesDiffer,
    Stopped,
    StresslensError,
    TrainingDiverged,
    reworded,
)

ERRORS: list[tuple[StresslensError, dict[str, Any]]] = [
    (ConfigError("no epochs"), {}),
    (SizesDiffer("two sizes", 32), {"proposed": 32}),
    (TrainingDiverged("no loss", [3, 5]), {"images": [3, 5]}),
    (
        Problems([Problem(("train", "lr"), "too small")]),
        {"problems": [Problem(("train", "lr"), "too small")]},
    ),
]
NAMES = [type(error).__name__ for error, _ in ERRORS]


@pytest.mark.parametrize(("error", "carried"), ERRORS, ids=NAMES)
def test_a_copy_and_one_from_another_process_are_the_same(
    error: StresslensError, carried: dict[str, Any]
) -> None:
    for again in (copy(error), pickle.loads(pickle.dumps(error))):
        assert (type(again), str(again), vars(again)) == (type(error), str(error), carried)


@pytest.mark.parametrize(("error", "carried"), ERRORS, ids=NAMES)
def test_another_message_changes_the_message_alone(error: StresslensError, carried: dict[str, Any]) -> None:
    before = str(error)
    again = reworded(error, "run: it")
    assert (type(again), str(again), vars(again)) == (type(error), "run: it", carried)
    assert str(error) == before


def test_a_signal_passes_between_processes_too() -> None:
    again = pickle.loads(pickle.dumps(Stopped("saved", 2)))
    assert (str(again), again.signal, again.exit_code) == ("saved", 2, 130)
