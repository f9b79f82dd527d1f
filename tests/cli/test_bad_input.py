"""What users get wrong: one clear message, the right exit code, and nothing lost."""

from __future__ import annotations

import errno
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import stresslens as sl
from stresslens.core.data import Data, Split
from stresslens.core.errors import ConfigError, DataError, StresslensError
from stresslens.core.files import UnreadableRun
from stresslens.core.run_folder import RunFolder
from stresslens.evaluation.saved_model import open_model
from stresslens.study import stages
from stresslens.study.failures import succeeded
from stresslens.training.task import Task

Make = Callable[..., Task]


def says(error: type[StresslensError], code: int, *words: str) -> Any:
    assert error.exit_code == code
    return pytest.raises(error, match="(?s)" + ".*".join(words))


def arrays(n: int = 60, classes: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, 1, 8, 8), generator=random, dtype=torch.uint8), torch.arange(n) % classes


def test_one_class_only() -> None:
    images, _ = arrays()
    with says(DataError, 3, "1 class", "at least two"):
        Data.from_arrays(images, torch.zeros(60, dtype=torch.int64))
    with says(DataError, 3, "every training image has the same label"):
        Data(Split(images, torch.zeros(60, dtype=torch.int64)), None, None, ("a", "b"))


def test_a_class_with_one_image() -> None:
    images, labels = arrays()
    labels[:] = torch.arange(60) % 2
    labels[7] = 2
    with says(DataError, 3, "cannot draw", "smallest", "'2'", "1 image"):
        Data.from_arrays(images, labels)


def test_labels_out_of_range() -> None:
    images, labels = arrays()
    labels[13] = 7
    with says(DataError, 3, "label 7", "image 13", "0 to 2"):
        Data(Split(images, labels), None, None, ("a", "b", "c"))
    with says(DataError, 3, "label -1"):
        Data(Split(images, labels.where(labels != 7, torch.tensor(-1))), None, None, ("a", "b", "c"))


def test_nan_in_the_users_tensors() -> None:
    images, labels = arrays()
    floats = images.float() / 255
    floats[11, 0, 3, 3] = float("nan")
    with says(DataError, 3, "NaN", "first at index 11"):
        Data.from_arrays(floats, labels)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (torch.zeros(6, 8), torch.zeros(6, dtype=torch.int64), "images have shape"),
        (
            torch.zeros(6, 1, 8, 8, dtype=torch.int32),
            torch.zeros(6, dtype=torch.int64),
            "images are torch.int32",
        ),
        (torch.zeros(6, 1, 8, 8), torch.zeros(5, dtype=torch.int64), "6 images but 5 labels"),
        (torch.zeros(6, 1, 8, 8), torch.full((6,), 0.5), "label 0 is 0.5; expected words, or whole"),
        (torch.zeros(6, 1, 8, 8), torch.zeros(6, 2, dtype=torch.int64), r"labels have shape \(6, 2\)"),
        (torch.zeros(0, 1, 8, 8), torch.zeros(0, dtype=torch.int64), "there are no images"),
        (torch.full((6, 1, 8, 8), 255.0), torch.arange(6) % 2, r"leave \[0, 1\] \(255 to 255\)"),
    ],
)
def test_wrong_dtype_or_shape(images: torch.Tensor, labels: torch.Tensor, message: str) -> None:
    with says(DataError, 3, message):
        Data.from_arrays(images, labels)


def test_nothing_left_to_train_on() -> None:
    with says(ConfigError, 2, "nothing is left to train on"):
        Data.from_arrays(*arrays(), test=40, validation=20)
    with says(ConfigError, 2, "neither a count"):
        Data.from_arrays(*arrays(), test=-1)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("lenet", "lenet needs at least 12×12 pixels; got 8×8"),
        ({"simple_cnn": {"channels": 0}}, "greater than or equal to 1"),
    ],
)
def test_a_model_too_big_for_the_image(task_of: Make, model: Any, message: str) -> None:
    with says(ConfigError, 2, message):
        succeeded(stages.carry_out(task_of(model)))


def test_resizing_is_the_way_out(task_of: Make, small: Data, tmp_path: Path) -> None:
    run = sl.train("lenet", small, out=tmp_path / "out", epochs=1, precision="float32", input={"size": 16})
    assert run.model()(torch.zeros(2, 1, 8, 8)).shape == (2, 10)


class Wrong(nn.Module):
    def __init__(self, output: Callable[[torch.Tensor], Any]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.output = output

    def forward(self, x: torch.Tensor) -> Any:
        return self.output(x)


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (lambda x: (x, x), "returns a tuple"),
        (lambda x: x, "expected logits"),
        (lambda x: torch.zeros(len(x), 7), r"\(N, 7\)"),
    ],
)
def test_own_module_that_does_not_return_logits(
    small: Data, tmp_path: Path, output: Any, message: str
) -> None:
    with says(ConfigError, 2, message):
        sl.train(Wrong(output), small, out=tmp_path / "out", epochs=1)


def test_rules_that_need_a_split_that_is_not_there(tmp_path: Path) -> None:
    data = Data.from_arrays(*arrays(), validation=0)
    for options in ({"select": "accuracy"}, {"stop": {"patience": 2}}):
        with says(ConfigError, 2, "needs the validation split"):
            sl.train("linear", data, out=tmp_path / "out", epochs=1, **options)
    assert (
        sl.train("linear", data, out=tmp_path / "out", epochs=1, precision="float32").record["training"][
            "select"
        ]
        == "last"
    )


def test_by_hand_on_a_convolutional_net(task_of: Make) -> None:
    with says(ConfigError, 2, "by_hand differentiates linear models and MLPs only"):
        succeeded(stages.carry_out(task_of("simple_cnn", objective="by_hand")))


def test_no_disk_space_keeps_what_was_there(task_of: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    task = task_of("linear", epochs=2)
    stages.carry_out(task)
    before = (task.folder / "record.json").read_bytes()

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with says(StresslensError, 1, "the disk is full", "unchanged"):
        succeeded(stages.carry_out(task_of("linear", epochs=2, folder=task.folder.parent / "seed-1")))
    assert (task.folder / "record.json").read_bytes() == before
    assert not list(task.folder.parent.rglob(".*.json.*"))


def test_unwritable_output(task_of: Make, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with says(ConfigError, 2, "cannot write to", "--out"):
        succeeded(stages.carry_out(task_of("linear", folder=tmp_path / "file" / "seed-0")))


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (os.environ["BOMB"],))


def test_hostile_pickles_are_not_executed(
    task_of: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BOMB", str(tmp_path / "boom"))
    task = task_of("linear", epochs=2)
    stages.carry_out(task)
    folder = RunFolder(task.folder)
    for content in (pickle.dumps(Bomb()),):
        folder.checkpoint.write_bytes(content)
        assert folder.load_checkpoint()[1] is not None
        folder.predictions("test").write_bytes(content)
        with pytest.raises(UnreadableRun):
            folder.load_predictions("test")
        folder.weights.write_bytes(content)
        with pytest.raises(UnreadableRun):
            open_model(folder)
    torch.save({"position": {}, "bomb": Bomb()}, folder.checkpoint)
    assert "could not be read" in str(folder.load_checkpoint()[1])
    np.savez(folder.predictions("test"), scores=np.array([Bomb()], dtype=object))
    with pytest.raises(UnreadableRun):
        folder.load_predictions("test")
    assert not (tmp_path / "boom").exists()


@pytest.mark.breadth(4)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": {"mlp": {"widths": [10**9]}}}, "do not belong together"),
        ({"model": {"evil.py:boom": {}}}, "--trust"),
        ({"model": "os:system"}, "--trust"),
        ({"model": {"mlp": {"depth": 3}}}, "no option 'depth'"),
        ({"model": 3}, "model"),
        ({"format": 2}, "format"),
        ({"classes": ["a"]}, "do not belong together"),
        ({"shape": [1, 9, 9]}, "do not belong together"),
        ({"gain": "x"}, "gain"),
        ({"gain": [[["x"]]]}, "do not belong together"),
        ({"extra": 1}, "extra"),
    ],
)
def test_hostile_model_json(task_of: Make, change: dict[str, Any], message: str) -> None:
    task = task_of("linear", epochs=1)
    stages.carry_out(task)
    folder = RunFolder(task.folder)
    folder.card.write_text(json.dumps(json.loads(folder.card.read_text()) | change))
    with says(ConfigError, 2, message):
        open_model(folder)


def test_damaged_files_of_a_run(task_of: Make) -> None:
    task = task_of("linear", epochs=1)
    stages.carry_out(task)
    folder = RunFolder(task.folder)
    folder.card.write_text("{")
    with says(UnreadableRun, 2, "cannot be read as JSON"):
        open_model(folder)
    folder.weights.unlink()
    with says(UnreadableRun, 2, "there is no"):
        RunFolder(task.folder.parent / "nothing").load_card()
    folder.config.write_text("train: [")
    with says(UnreadableRun, 2, "config.yaml cannot be read"):
        task_of("linear", epochs=1)


def test_two_processes_on_one_folder(task_of: Make) -> None:
    task = task_of("linear", epochs=1)
    with RunFolder(task.folder).locked(), says(ConfigError, 2, "being written by another process"):
        stages.carry_out(task)
