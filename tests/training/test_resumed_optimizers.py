"""A training with an optimizer of timm or torch that is stopped goes on with the same bits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from trainings import same_bits_after_a_stop

from stresslens.training.task import Task

LIBRARIES: dict[str, dict[str, Any]] = {
    "lion": {"timm": {"name": "lion", "weight_decay": 0.05}},
    "NAdam": {"torch": {"name": "NAdam", "weight_decay": 0.01, "decay": "weights"}},
}
CNN = {"simple_cnn": {"batch_norm": True, "channels": 4, "hidden": 8}}


@pytest.mark.parametrize("name", LIBRARIES)
def test_stopped_with_an_optimizer_of_a_library_it_goes_on_with_the_same_bits(
    task_of: Callable[..., Task], tmp_path: Path, name: str
) -> None:
    options = {"optimizer": LIBRARIES[name], "epochs": 4, "batch_size": 60, "lr": 0.01, "clip": 1.0}
    options |= {"schedule": "cosine", "select": "last"}
    whole, killed = (task_of(CNN, folder=tmp_path / each / "seed-0", **options) for each in "ab")
    state = same_bits_after_a_stop(whole, killed, 2)
    assert state["optimizer"]["state"]
