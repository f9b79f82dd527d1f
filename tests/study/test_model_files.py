"""A finished run whose model is missing or damaged: it is written again from the last checkpoint, or
refused in words."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

import stresslens as sl
from stresslens.config import study_file
from stresslens.core.errors import ConfigError, Notice
from stresslens.core.run_folder import RunFolder
from stresslens.evaluation.record import read_record
from stresslens.study import pipeline

COMPUTE: dict[str, Any] = {"precision": "float32", "threads": 1, "memory_format": "contiguous"}
KINDS: dict[str, dict[str, Any]] = {
    "best epoch": {"select": "accuracy", "lr": 0.3},
    "last epoch": {"select": "last"},
    "moving average": {"select": "last", "ema": 0.5},
    "best of a moving average": {"select": "accuracy", "ema": 0.5},
}


def trained(out: Path, data: sl.Data, epochs: int = 3, **options: Any) -> Path:
    return sl.train("linear", data, out=out, name="run", epochs=epochs, **COMPUTE, **options).folder


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-40])


def cut_in_the_head(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:20])


def garbage(file: Path) -> None:
    file.write_bytes(bytes(range(256)) * 20)


def empty(file: Path) -> None:
    file.write_bytes(b"")


def longer(file: Path) -> None:
    file.write_bytes(file.read_bytes() + b"more")


DAMAGE: list[Callable[[Path], None]] = [Path.unlink, cut, cut_in_the_head, garbage, empty, longer]
every_damage = pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)


@pytest.mark.breadth(2)
@pytest.mark.parametrize("kind", KINDS)
def test_missing_weights_are_those_of_the_run_again(tmp_path: Path, small: sl.Data, kind: str) -> None:
    folder = trained(tmp_path, small, **KINDS[kind])
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").unlink()
    with pytest.warns(Notice, match=r"run seed 0: model\.safetensors is missing, and was written again"):
        trained(tmp_path, small, **KINDS[kind])
    assert (folder / "model.safetensors").read_bytes() == weights


@pytest.mark.breadth(2)
@every_damage
def test_damaged_files_of_the_model_are_written_again(
    tmp_path: Path, small: sl.Data, damage: Callable[[Path], None]
) -> None:
    folder = trained(tmp_path, small)
    names = ("model.safetensors", "model.json")
    before = {name: (folder / name).read_bytes() for name in names}
    record = json.loads((folder / "record.json").read_text())
    for name in names:
        damage(folder / name)
    with pytest.warns(Notice, match="was written again"):
        run = sl.train("linear", small, out=tmp_path, name="run", epochs=3, **COMPUTE)
    assert {name: (folder / name).read_bytes() for name in names} == before
    assert run.model()(torch.zeros(1, *small.shape)).shape == (1, len(small.classes))
    after = json.loads((folder / "record.json").read_text())
    told = [note["message"] for note in after["findings"] if note["kind"] == "model files"]
    assert [text.split()[0] for text in told] == list(names)
    assert after["status"] == "finished"
    assert after | {"findings": []} == record | {"findings": []}
    trained(tmp_path, small)  # a Notice would be an error
    assert json.loads((folder / "record.json").read_text()) == after


@pytest.mark.breadth(2)
@every_damage
def test_weights_that_no_checkpoint_holds_are_refused_in_words(
    tmp_path: Path, small: sl.Data, damage: Callable[[Path], None]
) -> None:
    folder = trained(tmp_path, small)
    damage(folder / "model.safetensors")
    (folder / "checkpoint.pt").unlink()
    with pytest.raises(ConfigError, match=r"model\.safetensors is .*delete .* to train again"):
        trained(tmp_path, small)
    record = read_record(RunFolder(folder))
    assert (record.status, record.training.epochs) == ("incomplete", 3)
    assert record.message.startswith("model: ")


def test_weights_that_are_copied_back_are_taken(tmp_path: Path, small: sl.Data) -> None:
    folder = trained(tmp_path, small)
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").unlink()
    (folder / "checkpoint.pt").rename(tmp_path / "checkpoint.pt")
    with pytest.raises(ConfigError, match="there is no checkpoint"):
        trained(tmp_path, small)
    (folder / "model.safetensors").write_bytes(weights)
    trained(tmp_path, small)
    assert read_record(RunFolder(folder)).status == "finished"


def test_a_damaged_or_another_checkpoint_is_no_source_of_weights(tmp_path: Path, small: sl.Data) -> None:
    folder, other = trained(tmp_path / "a", small), trained(tmp_path / "b", small, lr=0.9)
    weights = folder / "model.safetensors"
    weights.unlink()
    (folder / "checkpoint.pt").write_bytes((other / "checkpoint.pt").read_bytes())
    with pytest.raises(ConfigError, match="the checkpoint holds other weights than the run had"):
        trained(tmp_path / "a", small)
    cut(folder / "checkpoint.pt")
    with pytest.raises(ConfigError, match=r"checkpoint\.pt could not be read .* to train again"):
        trained(tmp_path / "a", small)
    assert not weights.exists()


@pytest.mark.parametrize("position", [{"epoch": 3}, 3], ids=["of an epoch", "a number"])
def test_a_checkpoint_without_weights_is_refused_in_words(
    tmp_path: Path, small: sl.Data, position: Any
) -> None:
    folder = trained(tmp_path, small)
    (folder / "model.safetensors").unlink()
    torch.save({"position": position}, folder / "checkpoint.pt")
    with pytest.raises(ConfigError, match=r"checkpoint\.pt does not hold what .* delete .* to train again"):
        trained(tmp_path, small)
    assert read_record(RunFolder(folder)).status == "incomplete"


@pytest.mark.breadth(1)
@pytest.mark.parametrize("name", ["model.safetensors", "estimator.npz", "estimator.json"])
def test_a_model_without_a_checkpoint_is_refused_in_words(tmp_path: Path, small: sl.Data, name: str) -> None:
    def again() -> Path:
        if name.startswith("estimator"):
            return sl.train("knn", small, out=tmp_path, name="run").folder
        return trained(tmp_path, small, epochs=0)

    folder = again()
    assert again() == folder
    cut(folder / name)
    with pytest.raises(ConfigError, match=rf"{name} is (missing or )?damaged.*delete .* to train again"):
        again()


def test_an_own_module_has_its_weights_again(tmp_path: Path, small: sl.Data) -> None:
    net = CastingNet(len(small.classes))
    folder = sl.train(net, small, out=tmp_path, name="run", epochs=1, **COMPUTE).folder
    before = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").unlink()
    with pytest.warns(Notice, match="was written again"):
        sl.train(net, small, out=tmp_path, name="run", epochs=1, **COMPUTE)
    assert (folder / "model.safetensors").read_bytes() == before
    kept = safetensors.torch.load_file(folder / "model.safetensors")
    assert {value.dtype for value in kept.values()} == {torch.float64}


class CastingNet(torch.nn.Module):
    def __init__(self, classes: int) -> None:
        super().__init__()
        self.head = torch.nn.Linear(64, classes).double()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x.flatten(1).double())


def unlinked(checkpoint: Path) -> None:
    checkpoint.unlink()


def unreadable(checkpoint: Path) -> None:
    checkpoint.unlink()
    checkpoint.mkdir()


@pytest.mark.breadth(1)
@pytest.mark.parametrize(
    ("harm", "said"), [(unlinked, "b/seed-0/model.safetensors is damaged"), (unreadable, "cannot be read")]
)
def test_only_the_damaged_run_of_a_study_fails(
    tmp_path: Path, harm: Callable[[Path], None], said: str
) -> None:
    study = {
        "data": {"digits": {"subset": 100}},
        "model": "linear",
        "train": {"epochs": 1, **COMPUTE},
        "runs": {"a": {}, "b": {"train.lr": 0.1}},
    }

    def carried() -> pipeline.CarriedStudy:
        described = study_file.expand_study(study, name="s", base=tmp_path)
        return pipeline.carry_out_study(
            described,
            out=tmp_path,
            jobs=1,
            show=lambda task: lambda position, epochs, done: None,
            tell=lambda task, record: None,
            say=lambda line: None,
        )

    folder = carried().folder
    for run in ("a", "b"):
        cut(folder / run / "seed-0" / "model.safetensors")
    harm(folder / "b" / "seed-0" / "checkpoint.pt")
    with pytest.warns(Notice, match=r"a seed 0: model\.safetensors is damaged"):
        failures = carried().failures
    (failure,) = failures.values()
    assert said in failure.message
    assert read_record(RunFolder(folder / "a" / "seed-0")).status == "finished"
