"""Updates from several batches: every image weighs the same; results of the former arithmetic."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from trainings import weights

from stresslens.core.errors import ConfigError
from stresslens.core.files import read_json
from stresslens.core.run_folder import RunFolder
from stresslens.study import stages
from stresslens.study.failures import succeeded
from stresslens.training.task import Task

Make = Callable[..., Task]


def test_accumulation_equals_the_larger_batch(task_of: Make, tmp_path: Path) -> None:
    common = {
        "epochs": 3,
        "optimizer": "sgd",
        "lr": 0.1,
        "precision": "float64",
        "watch": [],
        "select": "last",
        "shuffle": False,
    }
    whole = task_of("linear", folder=tmp_path / "whole", batch_size=60, **common)
    parts = task_of("linear", folder=tmp_path / "parts", batch_size=20, accumulate=3, **common)
    for task in (whole, parts):
        record = stages.carry_out(task)
        assert record.training.steps == 6
    torch.testing.assert_close(weights(parts)["1.weight"], weights(whole)["1.weight"], rtol=1e-12, atol=1e-12)


@pytest.mark.breadth(2)
@pytest.mark.parametrize(
    ("options", "model"),
    [
        ({"batch_size": 39, "accumulate": 4}, "linear"),  # 39 + 39 + 39 + 3 images
        ({"batch_size": 50, "accumulate": 2}, "linear"),  # 50 + 50, then 20 alone
        ({"batch_size": 45, "accumulate": 5, "balance": "weights"}, "linear"),
        ({"batch_size": 45, "accumulate": 5, "loss": {"cross_entropy": {"smoothing": 0.2}}}, "linear"),
        ({"batch_size": 39, "accumulate": 8, "replay": 2}, "linear"),
        ({"batch_size": 39, "accumulate": 4, "objective": "by_hand"}, {"mlp": {"widths": [6]}}),
        ({"batch_size": 39, "accumulate": 4, "clip": 0.05}, "linear"),
    ],
    ids=["one short", "short alone", "class weights", "smoothing", "replay", "by hand", "clipped"],
)
def test_every_image_of_an_accumulated_update_weighs_the_same(
    options: dict[str, Any], model: Any, task_of: Make, tmp_path: Path
) -> None:
    """The update of a group of batches is that of one batch of all its images."""
    common = {"epochs": 1, "optimizer": "sgd", "lr": 0.5, "precision": "float64", "shuffle": False}
    common |= {"watch": [], "select": "last"}
    parts = task_of(model, folder=tmp_path / "parts", **common | options)
    in_group = options["batch_size"] * options["accumulate"] // options.get("replay", 1)
    whole_options = options | {"accumulate": 1, "replay": 1, "batch_size": in_group}
    whole = task_of(model, folder=tmp_path / "whole", **common | whole_options)
    for task in (whole, parts):
        stages.carry_out(task)
    for name, value in weights(parts).items():
        torch.testing.assert_close(value, weights(whole)[name], rtol=1e-6, atol=1e-7, msg=name)


def test_a_result_of_the_former_arithmetic_is_refused_in_words(task_of: Make) -> None:
    task = task_of("linear", batch_size=39, accumulate=4)
    stages.carry_out(task)
    file = RunFolder(task.folder).record
    assert task.data is not None
    kept = read_json(file) | {
        "version": "0.1.0",
        "fingerprint": task.plan.fingerprint(task.data, corrected=False),
    }
    file.write_text(json.dumps(kept))
    with pytest.raises(ConfigError, match=r"by version 0\.1\.0.*weighted by their images.*--out"):
        succeeded(stages.carry_out(task))


def test_a_training_that_the_correction_leaves_as_it_is_keeps_its_fingerprint(task_of: Make) -> None:
    for options in ({}, {"batch_size": 40, "accumulate": 3}, {"batch_size": 50, "accumulate": 2}):
        task = task_of("linear", **options)
        assert task.data is not None
        assert task.plan.fingerprint(task.data) == task.plan.fingerprint(task.data, corrected=False)
