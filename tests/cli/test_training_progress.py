"""The line of each epoch on the terminal, and what `train` says of the run that it trained."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from stresslens.cli.training_progress import EpochLines
from stresslens.config.schema import VariantConfig
from stresslens.training.task import Task

Type = Callable[..., tuple[int, str, str]]


def task(folder: Path) -> Task:
    config = VariantConfig(data="digits", model="linear")
    return Task("tests", "cnn", 3, config, folder, folder)


def logged(folder: Path, **figures: object) -> None:
    with (folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(figures) + "\n")


def test_an_epoch_is_told_once_with_its_validation_accuracy(tmp_path: Path) -> None:
    lines = EpochLines(task(tmp_path), 0)
    assert lines.new(5) == ""  # nothing is logged yet
    logged(tmp_path, epoch=1, loss=0.51234, validation={"accuracy": 0.9716, "loss": 0.1})
    told = "cnn seed 3: epoch 1 of 5: loss 0.5123, validation accuracy 97.2 %"
    assert lines.new(5) == told
    assert lines.new(5) == ""
    logged(tmp_path, epoch=3, loss=0.2, validation={"accuracy": 0.5, "robust": 0.25})
    assert lines.new(5).endswith("loss 0.2000, validation accuracy 50.0 %, robust 25.0 %")


def test_quick_epochs_do_not_fill_the_screen(tmp_path: Path) -> None:
    lines = EpochLines(task(tmp_path), 60)
    logged(tmp_path, epoch=1, loss=0.5)
    assert lines.new(5) == ""


@pytest.mark.parametrize("damage", ["", "{", "[]\n", '{"epoch": "x"}\n'])
def test_a_damaged_log_is_no_reason_to_stop(tmp_path: Path, damage: str) -> None:
    lines = EpochLines(task(tmp_path), 0)
    (tmp_path / "metrics.jsonl").write_text(damage)
    assert lines.new(5) == ""
    logged(tmp_path, epoch=2, loss=0.5)
    logged(tmp_path, epoch=3, loss=0.25)
    assert lines.new(5) == "cnn seed 3: epoch 3 of 5: loss 0.2500"


def test_a_log_that_was_cut_is_read_on(tmp_path: Path) -> None:
    """As where a training resumes from its checkpoint."""
    for epoch in range(1, 4):
        logged(tmp_path, epoch=epoch, loss=0.5)
    lines = EpochLines(task(tmp_path), 0)
    content = (tmp_path / "metrics.jsonl").read_bytes()
    (tmp_path / "metrics.jsonl").write_bytes(content[: len(content) // 3])
    assert lines.new(5) == ""
    logged(tmp_path, epoch=2, loss=0.125)
    assert lines.new(5) == "cnn seed 3: epoch 2 of 5: loss 0.1250"


@pytest.mark.breadth(1)
@pytest.mark.parametrize("quiet", [False, True])
def test_train_speaks_of_its_own_run_first(type_: Type, quiet: bool) -> None:
    """A folder of runs on several data sets: the last line a user sees is about the run just trained."""
    words = ["train.epochs=1", "--seed", "0"]
    assert type_("train", "digits", "linear", *words)[0] == 0
    code, out, _ = type_("train", "{digits: {subset: 100, seed: 3}}", "linear", *words, *["-q"][: int(quiet)])
    assert code == 0
    told = [line for line in out.splitlines() if not line.startswith(("all runs", "names of variants"))]
    assert " of 360 test images" in told[0]
    assert "digits_subset" in told[0] or "subset" in told[0] or "linear" in told[0]
    assert told[1].endswith(" on other runs of runs/train: in its report")
    assert not any(" of 288 test images" in line for line in told)


def test_a_run_that_is_left_out_has_its_short_name(type_: Type, tmp_path: Path) -> None:
    """An override is part of every folder's name, and no line on a run repeats it."""
    (tmp_path / "s.yaml").write_text(
        "data: {digits: {subset: 100}}\ntrain: {threads: 1}\n"
        "runs: {good: {model: linear}, lost: {model: {linear: {weights: {file: nowhere}}}}}\n"
    )
    code, _, err = type_("run", "s.yaml", "train.epochs=1")
    assert code != 0
    assert "    lost seed 0: " in err
    assert "good seed 0: " in err
