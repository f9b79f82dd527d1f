"""Runs that begin with weights: another run's or a file's, in studies, and what cannot be begun with."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from stresslens.config import study_file
from stresslens.core.data import Data
from stresslens.core.errors import ConfigError, Problems
from stresslens.core.run_folder import RunFolder
from stresslens.core.weights_file import read_state
from stresslens.evaluation.record import read_record
from stresslens.evaluation.saved_model import open_model
from stresslens.study import pipeline, stages
from stresslens.study.failures import succeeded
from stresslens.training.setup import build_model
from stresslens.training.task import Task


@pytest.fixture
def source(task_of: Callable[..., Task], tmp_path: Path) -> RunFolder:
    """A trained run to begin with."""
    task = task_of({"mlp": {"widths": [12]}}, folder=tmp_path / "study" / "first" / "seed-0")
    stages.carry_out(task)
    return RunFolder(task.folder)


def test_a_run_begins_where_another_ended(
    source: RunFolder, task_of: Callable[..., Task], small: Data
) -> None:
    value = {"mlp": {"widths": [12], "weights": {"run": str(source.path)}}}
    task = task_of(value, epochs=0)
    record = stages.carry_out(task)
    assert record.weights.as_json() == {
        "source": f"the run {source.path}",
        "said": f"started from the weights of the run {source.path}: 4 tensors as they are",
        "used": 4,
        "adapted": [],
        "fresh": [],
        "left": [],
        "input": "",
    }
    assert record.training.epochs == 0
    first, second = (open_model(folder).eval() for folder in (source, RunFolder(task.folder)))
    assert small.test is not None
    x = small.test.floats(small.test.images)
    assert torch.equal(first(x), second(x))


def test_the_head_begins_anew_for_other_classes_or_when_asked(
    source: RunFolder, task_of: Callable[..., Task], small: Data
) -> None:
    from dataclasses import replace

    value = {"mlp": {"widths": [12], "weights": {"run": str(source.path)}}}
    other = replace(small, classes=tuple("abcdefghij"))
    assert stages.carry_out(task_of(value, epochs=0, data=other)).weights.fresh == [
        "3.weight",
        "3.bias",
    ]
    value["mlp"]["weights"]["head"] = "new"  # type: ignore[index]
    folder = source.path.parent / "anew" / "seed-0"
    assert stages.carry_out(task_of(value, epochs=0, folder=folder)).weights.fresh == [
        "3.weight",
        "3.bias",
    ]


def test_images_are_prepared_as_the_weights_were_trained(
    source: RunFolder, task_of: Callable[..., Task]
) -> None:
    value = {"mlp": {"widths": [12], "weights": {"run": str(source.path)}}}
    large = Data.from_arrays(torch.rand(100, 16, 16), torch.arange(100) % 10, name="large")
    model = build_model(task_of(value, data=large), large)
    assert model.resize.size == (8, 8)  # type: ignore[union-attr]
    kept = open_model(source)
    assert torch.equal(model.normalize.gain, kept.normalize.gain)  # type: ignore[arg-type, union-attr]


def test_weights_that_changed_make_another_run(source: RunFolder, task_of: Callable[..., Task]) -> None:
    file = source.path.parent / "copy.safetensors"
    shutil.copy(source.weights, file)
    task = task_of({"mlp": {"widths": [12], "weights": {"file": str(file)}}}, epochs=1)
    stages.carry_out(task)
    state = read_state(file)
    state["3.bias"] += 1
    safetensors.torch.save_file(state, file)
    with pytest.raises(ConfigError, match="the initial weights"):
        succeeded(stages.carry_out(task))


STUDY = {
    "data": "digits",
    "model": {"mlp": {"widths": [8]}},
    "train": {"epochs": 1, "threads": 1, "precision": "float32", "memory_format": "contiguous"},
    "runs": {
        "tuned": {"model.weights": {"run": "first"}},
        "first": {},
        "scratch": {"train.lr": 0.01},
    },
    "repeats": 2,
}


@pytest.mark.slow
def test_a_study_trains_a_run_before_those_that_begin_with_it(tmp_path: Path) -> None:
    study = study_file.expand_study(STUDY, ["train.batch_size=128"], name="it", base=tmp_path)
    order: list[tuple[str, int]] = []
    folder = pipeline.run(study, out=tmp_path, tell=lambda task, record: order.append((task.run, task.seed)))
    names = [name.partition(",")[0] for name, _ in order]
    assert names.index("tuned") >= 4
    for seed in (0, 1):
        run = RunFolder(folder / "tuned,train.batch_size=128" / f"seed-{seed}")
        assert read_record(run).weights.used == 4
        assert read_record(run).weights.source == "the run first,train.batch_size=128"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"tuned": {"model.weights": {"run": "fist"}}},
            "no run of the study is called 'fist'; did you mean 'first'?",
        ),
        ({"first": {"estimator": "knn"}}, "first is an estimator and has no weights to start from"),
    ],
    ids=["unknown", "estimator"],
)
def test_a_run_that_cannot_be_begun_with_is_told_before_any_training(
    tmp_path: Path, changes: Any, message: str
) -> None:
    with pytest.raises(Problems) as caught:
        study_file.expand_study({**STUDY, "runs": STUDY["runs"] | changes}, name="it", base=tmp_path)  # type: ignore[operator]
    assert any(message in problem.message for problem in caught.value.problems)


def test_runs_that_wait_for_each_other_are_refused(tmp_path: Path) -> None:
    runs = {"a": {"model.weights": {"run": "b"}}, "b": {"model.weights": {"run": "a"}}}
    study = study_file.expand_study({**STUDY, "runs": runs}, name="it", base=tmp_path)
    with pytest.raises(ConfigError, match="a → b → a depend on each other"):
        pipeline.run(study, out=tmp_path)


@pytest.mark.slow
def test_a_study_in_config_form_repeats_a_run_that_began_with_another(tmp_path: Path) -> None:
    study = study_file.expand_study({**STUDY, "repeats": 1}, name="it", base=tmp_path)
    folder = pipeline.run(study, out=tmp_path / "runs")
    config = folder / "tuned" / "seed-0" / "config.yaml"
    again = pipeline.run(study_file.read_study(config), out=tmp_path / "again")
    first, second = (
        read_state(place / "tuned" / "seed-0" / "model.safetensors") for place in (folder, again)
    )
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.slow
def test_test_images_that_the_source_was_trained_on_are_found(tmp_path: Path) -> None:
    values: dict[str, Any] = {
        **STUDY,
        "runs": {
            "other division": {"data": {"digits": {"seed": 7}}},
            "begun": {"model.weights": {"run": "other division"}},
        },
        "repeats": 1,
    }
    folder = pipeline.run(study_file.expand_study(values, name="it", base=tmp_path), out=tmp_path)
    found = read_record(RunFolder(folder / "begun" / "seed-0")).data.findings
    leak, chosen = sorted(
        (each for each in found if each.audit == "trained on before"),
        key=lambda each: each.severity != "serious",
    )
    assert (leak.severity, chosen.severity) == ("serious", "minor")
    assert 150 < int(leak.evidence.split()[0]) < 280  # three fifths of 360 by chance
    values["runs"]["other division"] = {}
    folder = pipeline.run(study_file.expand_study(values, name="again", base=tmp_path), out=tmp_path)
    found = read_record(RunFolder(folder / "begun" / "seed-0")).data.findings
    assert not [each for each in found if each.audit == "trained on before"]


def test_a_folder_is_taken_as_it_is_written_and_its_seeds_are_named(
    source: RunFolder, task_of: Callable[..., Task]
) -> None:
    run = source.path.parent
    task = task_of({"mlp": {"widths": [12], "weights": {"run": str(run)}}}, epochs=0)
    assert stages.carry_out(task).weights.used == 4
    other = task_of(
        {"mlp": {"widths": [12], "weights": {"run": str(run)}}},
        epochs=0,
        seed=3,
        folder=run.parent / "b" / "seed-3",
    )
    with pytest.raises(ConfigError, match="it has seed-0, and this run is seed-3"):
        succeeded(stages.carry_out(other))


def test_a_head_that_cannot_be_kept_is_said(
    source: RunFolder, task_of: Callable[..., Task], small: Data
) -> None:
    five = Data.from_arrays(torch.rand(50, 8, 8), torch.arange(50) % 5, name="five")
    value = {"mlp": {"widths": [12], "weights": {"run": str(source.path), "head": "kept"}}}
    with pytest.raises(ConfigError, match=r"head: kept, but 3\.weight"):
        succeeded(stages.carry_out(task_of(value, data=five, epochs=0)))


def test_a_sweep_begins_with_files_alone(tmp_path: Path) -> None:
    sweep = {"space": {"train.lr": {"log": [0.001, 0.1]}}, "trials": 2}
    with pytest.raises(Problems) as caught:
        study_file.expand_study({**STUDY, "sweep": sweep}, name="it", base=tmp_path)
    assert any(
        "a sweep starts before other runs are trained" in problem.message for problem in caught.value.problems
    )
