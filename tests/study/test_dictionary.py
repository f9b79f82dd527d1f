"""A study from a dictionary; other settings make other runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import stresslens as sl
from stresslens.core.errors import ConfigError

SMALL: dict[str, Any] = {"digits": {"subset": 50}}
VALUES: dict[str, Any] = {"data": SMALL, "model": "linear", "train": {"epochs": 1, "precision": "float32"}}


def variants(study: sl.Study) -> list[str]:
    return [run.variant for run in study.runs]


def test_it_is_the_same_study_as_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(
        "study: s\ndata: {digits: {subset: 50}}\nmodel: linear\ntrain: {epochs: 1, precision: float32}\n"
    )
    one, other = sl.run(file, out=tmp_path / "a"), sl.run({**VALUES, "study": "s"}, out=tmp_path / "b")
    weights = [study / "run" / "seed-0" / "model.safetensors" for study in (one, other)]
    assert weights[0].read_bytes() == weights[1].read_bytes()


@pytest.mark.slow
def test_each_second_call_with_other_settings_makes_runs_beside(tmp_path: Path) -> None:
    changes: list[dict[str, Any]] = [
        {},
        {"train": {**VALUES["train"], "epochs": 2}},
        {"train": {**VALUES["train"], "lr": 0.1}},
        {"model": {"mlp": {"widths": [4]}}},
        {"input": {"normalize": "none"}},
        {"data": {"digits": {"subset": 60}}},
    ]
    studies = [sl.run({**VALUES, "study": "s", **change}, out=tmp_path) for change in changes]
    names = variants(studies[-1])
    assert len(names) == len(changes)
    assert {"run", "run,train.epochs=2", "run,train.lr=0.1"} < set(names)
    stamps = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("model.safetensors")}
    for change in changes:
        sl.run({**VALUES, "study": "s", **change}, out=tmp_path)
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("model.safetensors")} == stamps


@pytest.mark.slow
def test_its_contrasts_are_of_the_runs_beside(tmp_path: Path) -> None:
    study = {**VALUES, "study": "s", "runs": {"a": {}, "b": {"train.lr": 0.1}}}
    sl.run({**study, "contrasts": {"rate": {"pairs": [["a", "b"]]}}}, out=tmp_path)
    values = {**study, "train": {**VALUES["train"], "batch_size": 10}}
    second = sl.run({**values, "contrasts": {"rate": {"pairs": [["a", "b"]]}}}, out=tmp_path)
    pairs = {(each["a"], each["b"]) for each in second.comparison["contrasts"]}
    assert pairs == {("a", "b"), ("a,train.batch_size=10", "b,train.batch_size=10")}


@pytest.mark.slow
def test_an_evaluation_beside_makes_no_other_run(tmp_path: Path) -> None:
    sl.run({**VALUES, "study": "s"}, out=tmp_path)
    attacked = {"protocol": ["fgsm"], "radii": [0.1], "images": 10, "audit": False}
    study = sl.run({**VALUES, "study": "s", "robustness": attacked}, out=tmp_path)
    assert variants(study) == ["run"]
    assert study.runs[0].record["robustness"]


def test_without_a_name_it_is_called_like_its_data(tmp_path: Path) -> None:
    assert sl.run({**VALUES, "train": {"epochs": 0}}, out=tmp_path).name.startswith("digits_subset-50")


@pytest.mark.slow
def test_values_may_be_arrays_paths_and_tuples(tmp_path: Path) -> None:
    values = {
        **VALUES,
        "train": {"epochs": np.int64(1), "lr": np.float32(0.5), "precision": "float32"},
        "repeats": (0, 1),
        "grid": {"train.batch_size": np.array([10, 20])},
    }
    study = sl.run(values, "train.epochs=0", out=tmp_path)
    assert len(study.runs) == 4


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"modle": "linear"}, "modle: .*did you mean 'model'"),
        ({"train": {"epochs": "many"}}, r"train\.epochs: "),
        ({"data": torch.zeros(3), "model": "linear"}, "data"),
        ({"model": torch.nn.Linear(2, 2)}, "model: a Linear is no setting that can be written down"),
        ({"train": {"lr": lambda: 1}}, r"train\.lr: a lambda cannot be written down"),
        ({"data": {"folder": {"path": Path("nowhere")}}}, "there is no nowhere"),
    ],
    ids=["key", "value", "tensor", "module", "function", "path"],
)
def test_mistakes_are_told_by_their_keys(values: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(sl.StresslensError, match=message):
        sl.run(values, out=tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"jobs": 0}, "jobs is 0; expected a whole number from 1 up"),
        ({"jobs": "2"}, "jobs is '2'"),
        ({"out": 5}, "out is an int; expected a path"),
        ({"executor": "rya"}, "no executor is called 'rya'"),
    ],
    ids=["no jobs", "text", "out", "executor"],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        sl.run(VALUES, **options)


def test_a_wrong_override_is_told_in_words(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^train\.epohcs=1: unknown key"):
        sl.run(VALUES, "train.epohcs=1", out=tmp_path)
    with pytest.raises(ConfigError, match="expected text such as"):
        sl.run(VALUES, {"train.epochs": 1}, out=tmp_path)  # type: ignore[arg-type]
