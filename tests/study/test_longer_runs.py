"""More epochs for a run that has ended: the same bits as all of them at once, with its parent kept; and
what has no first epochs in common is refused."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch

import stresslens as sl
from stresslens.config import study_file
from stresslens.config.yaml_source import parse_value
from stresslens.core.errors import ConfigError
from stresslens.core.run_folder import RunFolder
from stresslens.evaluation.record import read_record
from stresslens.report.page import write_report
from stresslens.study import longer_runs, pipeline

COMPUTE: dict[str, Any] = {"precision": "float32", "threads": 1, "memory_format": "contiguous"}
SOUND: dict[str, dict[str, Any]] = {
    "constant": {},
    "step": {"schedule": {"step": {"every": 2}}, "optimizer": "momentum", "augment": ["flip"], "ema": 0.9},
    "lion": {"optimizer": {"timm": {"name": "lion", "weight_decay": 0.05}}},
    "NAdam": {"optimizer": {"torch": {"name": "NAdam"}}},
}
SPREAD: dict[str, dict[str, Any]] = {
    "cosine": {"schedule": "cosine"},
    "one_cycle": {"schedule": "one_cycle"},
    "warmup": {"schedule": {"warmup": {"share": 0.5, "then": "constant"}}},
    "ramp": {"objective": {"adversarial": {"norm": "linf", "eps": 0.1, "ramp": 0.5}}},
    "swa": {"swa": 0.5},
}


def trained(out: Path, data: sl.Data, epochs: int, **options: Any) -> Path:
    return sl.train("linear", data, out=out, name="run", epochs=epochs, **COMPUTE, **options).folder


@pytest.mark.breadth(1)
@pytest.mark.parametrize("kind", SOUND)
def test_more_epochs_give_the_bits_of_all_at_once(tmp_path: Path, small: sl.Data, kind: str) -> None:
    whole = trained(tmp_path / "whole" / "s", small, 5, **SOUND[kind])
    first = trained(tmp_path / "longer" / "s", small, 2, **SOUND[kind])
    weights = (first / "model.safetensors").read_bytes()
    longer = trained(tmp_path / "longer" / "s", small, 5, **SOUND[kind])
    assert longer == first
    for name in ("model.safetensors", "metrics.jsonl", "config.yaml"):
        assert (longer / name).read_bytes() == (whole / name).read_bytes(), name
    record = read_record(RunFolder(longer))
    assert record.parent is not None
    assert (record.parent.epochs, record.parent.reads_of_test) == (2, 1)
    kept = longer.parent / record.parent.folder
    assert (kept / "model.safetensors").read_bytes() == weights
    assert read_record(RunFolder(kept)).fingerprint == record.parent.fingerprint
    assert "goes on with another one" in write_report(longer).read_text()
    assert trained(tmp_path / "longer" / "s", small, 5, **SOUND[kind]) == longer
    assert [path.name for path in longer.parent.glob("earlier/*")] == ["epochs-2-seed-0"]


@pytest.mark.breadth(1)
@pytest.mark.parametrize("kind", [*SOUND, *SPREAD])
def test_a_run_without_epochs_goes_on_with_all_of_them(tmp_path: Path, small: sl.Data, kind: str) -> None:
    """No epoch was trained, so none can differ from those of the longer run."""
    options = (SOUND | SPREAD)[kind]
    whole = trained(tmp_path / "whole" / "s", small, 2, **options)
    first = trained(tmp_path / "longer" / "s", small, 0, **options)
    weights = (first / "model.safetensors").read_bytes()
    longer = trained(tmp_path / "longer" / "s", small, 2, **options)
    assert longer == first
    for name in ("model.safetensors", "metrics.jsonl", "config.yaml"):
        assert (longer / name).read_bytes() == (whole / name).read_bytes(), name
    record = read_record(RunFolder(longer))
    assert record.parent is not None
    assert (record.parent.epochs, record.training.epochs) == (0, 2)
    assert (longer.parent / record.parent.folder / "model.safetensors").read_bytes() == weights
    assert "goes on with another one" in write_report(longer).read_text()
    if kind in SOUND:
        trained(tmp_path / "longer" / "s", small, 3, **options)
        assert sorted(path.name for path in longer.parent.glob("earlier/*")) == [
            "epochs-0-seed-0",
            "epochs-2-seed-0",
        ]


@pytest.mark.parametrize("options", [{"lr": 0.5}, {"batch_size": 7}])
def test_a_run_without_epochs_and_another_setting_is_refused(
    tmp_path: Path, small: sl.Data, options: dict[str, Any]
) -> None:
    trained(tmp_path, small, 0)
    with pytest.raises(ConfigError, match="holds another configuration"):
        trained(tmp_path, small, 2, **options)


@pytest.mark.breadth(2)
@pytest.mark.parametrize("kind", SPREAD)
def test_what_depends_on_the_number_of_epochs_is_refused(tmp_path: Path, small: sl.Data, kind: str) -> None:
    folder = trained(tmp_path, small, 2, **SPREAD[kind])
    with pytest.raises(ConfigError, match=r"trained for 2 epochs.*\n.*to go on from its weights"):
        trained(tmp_path, small, 3, **SPREAD[kind])
    assert read_record(RunFolder(folder)).training.epochs == 2


def test_more_epochs_with_an_average_over_epochs_are_refused(tmp_path: Path, small: sl.Data) -> None:
    folder = trained(tmp_path, small, 2, swa=0.5)
    weights = (folder / "model.safetensors").read_bytes()
    with pytest.raises(ConfigError, match=r"averaged over the epochs behind a share \(swa\) of all\n"):
        trained(tmp_path, small, 4, swa=0.5)
    assert (folder / "model.safetensors").read_bytes() == weights
    assert trained(tmp_path, small, 2, swa=0.5) == folder


def test_the_refusal_has_a_call_that_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    options: dict[str, Any] = {
        **COMPUTE,
        "schedule": {"cosine": {"floor": 1e-5}},
        "name": "run",
        "out": "runs",
    }
    sl.train("linear", "digits", epochs=1, **options)
    with pytest.raises(ConfigError, match="train 2 epochs more from its weights") as caught:
        sl.train("linear", "digits", epochs=3, **options)
    call = str(caught.value).partition("of their own: ")[2].partition(", with its other")[0]
    longer = eval(call, {"sl": sl})
    assert longer.folder.parent.name == "longer"
    assert longer.config["train"]["epochs"] == 2
    weights = read_record(RunFolder(longer.folder)).weights
    assert weights is not None
    assert not weights.fresh


@pytest.mark.slow
def test_the_refusal_has_a_command_that_works(tmp_path: Path) -> None:
    def described(epochs: int) -> study_file.Study:
        train = {**COMPUTE, "schedule": "cosine", "epochs": epochs}
        values = {"data": "digits", "model": "linear", "train": train, "runs": {"run": {}}}
        return study_file.expand_study(values, name="train", base=tmp_path)

    pipeline.run(described(1), out=tmp_path)
    with pytest.raises(ConfigError, match="train 2 epochs more from its weights") as caught:
        pipeline.run(described(3), out=tmp_path)
    words = shlex.split(str(caught.value).partition("of their own: ")[2].partition(", with its other")[0])
    assert words[:2] == ["stresslens", "train"]
    values = {"data": words[2], "model": parse_value(words[3]), "runs": {words[-1]: {}}}
    study = study_file.expand_study(values, words[4:6], name="train", base=tmp_path)
    folder = pipeline.run(study, out=tmp_path)
    weights = read_record(RunFolder(folder / study.variants[0].name / "seed-0")).weights
    assert weights is not None
    assert not weights.fresh


def test_an_own_objective_that_reads_the_progress_is_refused(
    tmp_path: Path, small: sl.Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(
        "def mine(model, x, y, step):\n    return (1 + step.progress) * model(x).square().mean()\n"
    )
    trained(tmp_path, small, 1, objective="own.py:mine")
    with pytest.raises(ConfigError, match=r"own\.py:mine uses `step\.progress`"):
        trained(tmp_path, small, 2, objective="own.py:mine")


def test_fewer_epochs_or_another_setting_beside_are_refused(tmp_path: Path, small: sl.Data) -> None:
    trained(tmp_path, small, 2)
    for epochs, options in ((1, {}), (3, {"lr": 0.5})):
        with pytest.raises(ConfigError, match="holds another configuration"):
            trained(tmp_path, small, epochs, **options)


def test_other_data_or_other_weights_are_refused(
    tmp_path: Path, small: sl.Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The splits may be drawn anew: images that were trained on would be tested on."""
    folder = trained(tmp_path, small, 1)
    fewer = replace(small, train=replace(small.train, labels=small.train.labels.flip(0)))
    with pytest.raises(ConfigError, match="the data set has changed since"):
        trained(tmp_path, fewer, 2)
    monkeypatch.chdir(tmp_path)
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    model = {"linear": {"weights": {"file": "w.safetensors"}}}
    safetensors.torch.save_file(weights, "w.safetensors")
    sl.train(model, small, name="again", out=tmp_path, epochs=1, **COMPUTE)
    safetensors.torch.save_file({name: 2 * value for name, value in weights.items()}, "w.safetensors")
    with pytest.raises(ConfigError, match="the initial weights or the code of a plug-in has changed since"):
        sl.train(model, small, name="again", out=tmp_path, epochs=2, **COMPUTE)


@pytest.mark.breadth(1)
@pytest.mark.parametrize("before", [0, 1])
def test_killed_between_its_two_moves_it_goes_on(
    tmp_path: Path, small: sl.Data, monkeypatch: pytest.MonkeyPatch, before: int
) -> None:
    class Killed(BaseException):
        pass

    folder = trained(tmp_path, small, before)
    rename: Callable[[Path, Path], Path] = Path.rename

    def once(self: Path, target: Path) -> Path:
        if self.name.endswith(".longer"):
            raise Killed
        return rename(self, target)

    monkeypatch.setattr(longer_runs.Path, "rename", once)
    with pytest.raises(Killed):
        trained(tmp_path, small, 2)
    monkeypatch.setattr(longer_runs.Path, "rename", rename)
    assert not folder.exists()
    record = read_record(RunFolder(trained(tmp_path, small, 2)))
    assert record.parent is not None
    assert record.parent.epochs == before
    assert [position.epoch for position in record.resumed_from] == [1] * before
