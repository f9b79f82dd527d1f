"""The lines of metrics.jsonl and timings.jsonl are read as they were written."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from stresslens.comparison import convergence
from stresslens.core.files import UnreadableRun
from stresslens.core.run_folder import RunFolder
from stresslens.study import stages
from stresslens.training.epoch_log import EpochMetrics, EpochTime
from stresslens.training.task import Task

OBJECTIVE = {"adversarial": {"attack": "fgsm", "eps": 0.1}}


@pytest.mark.parametrize("watch", [["validation"], ["test", "train", "validation"], []], ids=str)
def test_a_trainings_lines_are_read_and_written_again_byte_by_byte(
    task_of: Callable[..., Task], watch: list[str]
) -> None:
    options = {"objective": OBJECTIVE} if watch else {"select": "last"}
    task = task_of("linear", epochs=3, watch=watch, **options)
    stages.carry_out(task)
    folder = RunFolder(task.folder)
    read = EpochMetrics.read_lines(folder.metrics)
    assert [line.as_json() for line in read] == folder.read_lines(folder.metrics)
    written = "".join(json.dumps(line.as_json(watch)) + "\n" for line in read)
    assert written.encode() == folder.metrics.read_bytes()
    order = ["epoch", "loss", "last_loss", "lr", *watch, *(["objective"] if watch else [])]
    assert [[*line] for line in folder.read_lines(folder.metrics)] == [order] * 3
    times = EpochTime.read_lines(folder.timings)
    written = "".join(json.dumps(line.as_json()) + "\n" for line in times)
    assert written.encode() == folder.timings.read_bytes()
    assert [line.epoch for line in times] == [1, 2, 3]


def test_the_lines_of_version_0_1_0_are_kept_byte_by_byte() -> None:
    folder = RunFolder(Path(__file__).parents[1] / "made_before" / "study" / "run" / "seed-0")
    for path, kind in ((folder.metrics, EpochMetrics), (folder.timings, EpochTime)):
        read = kind.read_lines(path)
        assert read
        assert "".join(json.dumps(each.as_json()) + "\n" for each in read).encode() == path.read_bytes()


def test_figures_that_are_not_finite_are_read_back(tmp_path: Path) -> None:
    written = EpochMetrics(epoch=1, loss=math.inf, validation={"loss": math.nan, "accuracy": 0.5})
    (tmp_path / "log").write_text(json.dumps(written.as_json()) + "\n")
    (read,) = EpochMetrics.read_lines(tmp_path / "log")
    assert read.figure("loss") == math.inf
    assert math.isnan(read.validation["loss"])
    assert read.figure("validation", "accuracy") == 0.5
    assert read.figure("test", "accuracy") is None
    assert read.figure("lr") is read.figure("accuracy") is None


def test_a_line_of_another_form_is_skipped_or_named(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text('{"epoch": 1, "later": [1]}\n[]\n{"epoch": 2, "loss": "much"}\n{"epoch": 3}\n{"epo')
    assert [line.epoch for line in EpochMetrics.read_lines(path, skip_other_forms=True)] == [1, 3]
    with pytest.raises(UnreadableRun, match=r"log is damaged: line 2: Input should be an object"):
        EpochMetrics.read_lines(path)
    assert EpochMetrics.read_lines(tmp_path / "nothing") == []


@pytest.mark.parametrize("content", [b"nonsense\n", b'{"epoch": \n', b"\xff\xfe\n", b"\n"], ids=str)
def test_a_line_that_is_not_json_is_unreadable(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "log").write_bytes(b'{"epoch": 1}\n' + content)
    with pytest.raises(UnreadableRun, match=r"log is damaged: line 2: Invalid JSON"):
        EpochMetrics.read_lines(tmp_path / "log", skip_other_forms=True)


def test_convergence_reads_the_evaluated_epochs(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    lines = [
        EpochMetrics(epoch=1, loss=2.0),
        EpochMetrics(epoch=2, loss=1.0, validation={"loss": 1.5, "accuracy": 0.75}),
    ]
    folder.metrics.write_text("".join(json.dumps(line.as_json()) + "\n" for line in lines))
    assert convergence._accuracy_by_epoch(folder) == {2: 0.75}
