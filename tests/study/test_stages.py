"""A run's evaluations: what is refused before training, what is done again and what is not, and how
often test is read."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stresslens.config import study_file
from stresslens.config.own_plugins import source_digests
from stresslens.config.schema import Corruptions, IndividualAttack, Robustness
from stresslens.core.data import Data
from stresslens.core.errors import ConfigError, Stopped, TrainingDiverged
from stresslens.core.files import read_json
from stresslens.core.run_folder import RunFolder
from stresslens.study import pipeline, predict_stage, stages
from stresslens.training.task import Task

OWN = "from stresslens.plugins.attacks.noise import noise\n\n\ndef mine(model, x, y, ball, draws, watch):\n"
OWN += "    return noise(model, x, y, ball, draws, watch, None)\n"


def asking(task: Task, **asked: Any) -> Task:
    """The task with another evaluation of its model."""
    return replace(task, config=replace(task.config, **asked))


def attacked_by(*protocol: Any, **options: Any) -> Robustness:
    return Robustness("0.1", protocol=list(protocol), images=20, audit=False, **options)


@pytest.mark.parametrize(
    ("asked", "without", "message"),
    [
        ({"robustness": attacked_by("fgsm", target=12)}, None, r"target: 12 is no class; they are 0 to 9"),
        (
            {"robustness": attacked_by(individual_attacks=[IndividualAttack("fgsm", target=10)])},
            None,
            r"target: 10 is no class",
        ),
        (
            {"robustness": attacked_by("fgsm", split="validation")},
            "validation",
            r"robustness\.split: .* no validation split",
        ),
        (
            {"corruptions": Corruptions(["fog"], split="validation")},
            "validation",
            r"corruptions\.split: .* no validation split",
        ),
        ({"corruptions": ["fog"]}, "test", r"corruptions\.split: .* no test split"),
        (
            {"robustness": attacked_by("transfer", surrogate="nope")},
            None,
            r"robustness\.surrogate: .*nope.* no trained model",
        ),
    ],
)
def test_what_the_data_does_not_allow_is_refused_before_training(
    task_of: Callable[..., Task], small: Data, asked: dict[str, Any], without: str | None, message: str
) -> None:
    task = asking(task_of("linear", data=replace(small, **{without: None}) if without else small), **asked)
    with pytest.raises(ConfigError, match=message):
        stages.carry_out(task)
    assert not (task.folder / "model.safetensors").exists()


def test_own_attacks_leave_the_training_valid_and_are_done_again_when_edited(
    task_of: Callable[..., Task], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "att_of_mine.py"
    file.write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    task = task_of("linear")
    first = stages.carry_out(task)
    weights = (task.folder / "model.safetensors").stat().st_mtime_ns
    wanted = asking(task, robustness=attacked_by("att_of_mine:mine"), corruptions=["fog"])
    attacked = stages.carry_out(wanted)
    assert attacked.fingerprint == first.fingerprint
    assert stages.carry_out(wanted).stages == attacked.stages
    file.write_text(OWN.replace("return", "x = x * 1\n    return"))
    sys.modules.pop("att_of_mine")
    again = stages.carry_out(wanted)
    assert again.stages["robustness"] != attacked.stages["robustness"]
    assert {k: v for k, v in again.stages.items() if k != "robustness"} == {
        k: v for k, v in attacked.stages.items() if k != "robustness"
    }
    assert len(again.robustness) == 2
    assert (task.folder / "model.safetensors").stat().st_mtime_ns == weights


def test_the_code_of_training_still_counts(
    task_of: Callable[..., Task], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "net_of_mine.py"
    file.write_text(
        "from torch import nn\n\n\ndef net(shape, classes):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, classes))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    task = task_of("net_of_mine:net")
    stages.carry_out(task)
    file.write_text(file.read_text() + "\n")
    with pytest.raises(ConfigError, match="code of a plug-in has changed since"):
        stages.carry_out(task)


def test_a_stage_that_is_stopped_counts_no_read_of_test(
    task_of: Callable[..., Task], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*given: Any) -> None:
        raise Stopped("stopped by SIGTERM", signal.SIGTERM)

    task = task_of("linear")
    with monkeypatch.context() as patched:
        patched.setattr(predict_stage, "save_examples", stopped)  # after the read was counted
        with pytest.raises(Stopped):
            stages.carry_out(task)
    record = read_json(task.folder / "record.json")
    assert (record["status"], record["reads_of_test"], list(record["stages"])) == ("stopped", 0, ["training"])
    assert stages.carry_out(task).reads_of_test == 1


def test_a_finished_run_that_says_it_is_running_is_healed(task_of: Callable[..., Task]) -> None:
    """A kill came between the last stage and the end."""
    task = task_of("linear")
    whole = stages.carry_out(task)
    whole.status = "running"
    stages.write_record(RunFolder(task.folder), whole)
    assert stages.carry_out(task).status == "finished"
    assert read_json(task.folder / "record.json")["status"] == "finished"


def test_every_result_reads_test_once(task_of: Callable[..., Task]) -> None:
    task = task_of("linear")
    assert stages.carry_out(task).reads_of_test == 1
    certified = asking(
        task, robustness=replace(attacked_by("fgsm"), certificates=["interval"]), corruptions=["fog"]
    )
    record = stages.carry_out(certified)
    assert record.reads_of_test == 4  # predictions, attack, certificate, corruptions
    record.stages = {k: v for k, v in record.stages.items() if k not in ("robustness", "corruptions")}
    folder = RunFolder(task.folder)
    stages.write_record(folder, record)
    assert stages.carry_out(certified).reads_of_test == 4  # finished results are read
    assert stages.carry_out(asking(certified, corruptions=["blur"])).reads_of_test == 5


def test_runs_whose_surrogate_diverged_are_left_out_and_the_study_is_concluded(tmp_path: Path) -> None:
    file = tmp_path / "tiny.yaml"
    file.write_text(
        "data: {digits: {subset: 100}}\nmodel: linear\n"
        "train: {epochs: 2, precision: float32, optimizer: sgd, threads: 1, memory_format: contiguous}\n"
        "runs:\n  sound: {}\n  wild: {train.lr: 1.0e+38}\n"
        "  hit: {robustness: {radii: 0.1, images: 10, audit: false, protocol: [transfer], surrogate: wild}}\n"
        "  hurt: {robustness: {radii: 0.1, images: 10, audit: false, protocol: [transfer], surrogate: hit}}\n"
    )
    with pytest.raises(TrainingDiverged) as caught:
        pipeline.run(study_file.read_study(file), out=tmp_path / "runs")
    wild, hit, hurt = str(caught.value).splitlines()
    assert "wild" in wild
    assert "hit/seed-0: left out, since its surrogate" in hit
    assert "hurt/seed-0: left out" in hurt
    folder = tmp_path / "runs" / "tiny"
    assert (folder / "report.html").is_file()
    assert read_json(folder / "sound" / "seed-0" / "record.json")["status"] == "finished"


def test_digests_change_with_the_file(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("a = 1\n")
    before = source_digests([{"own.py:f": {"attack": "pgd"}}], base=tmp_path)
    (tmp_path / "own.py").write_text("a = 2\n")
    assert source_digests([{"own.py:f": {}}], base=tmp_path) != before
    assert source_digests(["pgd", "nowhere.py:f"], base=tmp_path) == []
