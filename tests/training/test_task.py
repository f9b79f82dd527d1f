"""A task: what its configuration comes to is worked out once, and stays behind when it goes to a worker."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from stresslens.config import study_file
from stresslens.core.devices import ComputeConfig
from stresslens.training.autotune import compute_config
from stresslens.training.task import Task

OWN = "def own(logits, y, *, factor: float = 2.0): return factor * ((logits[:, 0] - y) ** 2).mean()\n"


def own_task(tmp_path: Path, **settings: object) -> Task:
    (tmp_path / "own.py").write_text(OWN)
    values = {"model": "linear", "train": {"loss": "own.py:own", "threads": 1}, **settings}
    config = study_file.variant_config_from(values, tmp_path)
    return Task("tests", "run", 0, config, tmp_path, tmp_path / "run")


def test_a_plan_is_made_once_and_stays_behind_when_the_task_is_pickled(tmp_path: Path) -> None:
    task = own_task(tmp_path)
    assert task.plan is task.plan
    assert task.plan.configuration is task.plan.configuration
    assert task.plan.objective.options["loss"].function.__name__ == "own"
    before = task.plan.configuration
    again = pickle.loads(pickle.dumps(task))
    assert again == task
    assert again.plan is not task.plan
    assert again.plan.configuration == before


def test_own_plugins_are_named_as_their_copies(tmp_path: Path) -> None:
    plan = own_task(tmp_path).plan
    ((name, (file, copy)),) = plan.own_sources.items()
    assert (name, file) == ("own.py:own", tmp_path / "own.py")
    assert plan.configuration["train"]["loss"] == f"plugins/{copy}:own"
    assert plan.settings["train"]["loss"] == "own.py:own"


def test_what_was_decided_stands_in_the_configuration_and_not_in_what_was_asked(tmp_path: Path) -> None:
    task = own_task(tmp_path)
    with pytest.raises(ValueError, match="not decided yet"):
        compute_config(task)
    decided = replace(task, compute=ComputeConfig("cpu", "bfloat16", 3, "channels_last"))
    assert compute_config(decided) is decided.compute
    assert decided.config == task.config
    train = decided.plan.configuration["train"]
    assert (train["device"], train["precision"], train["threads"]) == ("cpu", "bfloat16", 3)
    assert train["memory_format"] == "channels_last"
    assert task.plan.configuration["train"]["precision"] == "auto"


def test_an_attack_is_resolved_from_the_section_that_it_keeps(
    tmp_path: Path, task_of: Callable[..., Task]
) -> None:
    threat = own_task(tmp_path, robustness={"radii": [0.1], "images": 20, "audit": False}).plan.threat
    assert threat is not None
    assert (threat.config.images, threat.config.split, threat.config.audit) == (20, "test", False)
    assert own_task(tmp_path).plan.threat is None
    assert task_of("linear").plan.initial_weights is None
