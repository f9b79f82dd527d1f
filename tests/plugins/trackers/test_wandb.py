"""What Weights & Biases leaves on the disk without a network, read back record by record."""

from __future__ import annotations

import json
import struct
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from stresslens.core.errors import Notice
from stresslens.study import stages
from stresslens.training.task import Task

if TYPE_CHECKING:
    from wandb.proto.wandb_internal_pb2 import Record


def left_by(task: Task) -> list[Record]:
    """The records of the run's one file, once W&B's own process has written the last of them."""
    (file,) = (task.folder / "wandb").glob("offline-run-*/run-*.wandb")
    patience = time.monotonic() + 30
    found: list[Record] = []
    while "exit" not in {record.WhichOneof("record_type") for record in found}:
        assert time.monotonic() < patience
        time.sleep(0.05)
        found = list(records(file))
    return found


def records(file: Path) -> Iterator[Record]:
    """Of a .wandb file, which is LevelDB's log: 7 bytes of header, then parts of (checksum, length,
    kind) in blocks of 32 KiB."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, at, whole = file.read_bytes(), 7, b""
    while at + 7 <= len(content):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        length, kind = struct.unpack_from("<HB", content, at + 4)
        if at + 7 + length > len(content):
            return  # being written
        whole += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield Record.FromString(whole)
            whole = b""


def history(found: list[Record]) -> list[dict[str, Any]]:
    logged = [record.history.item for record in found if record.WhichOneof("record_type") == "history"]
    return [
        {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items}
        for items in logged
    ]


def tracked_by(task: Task, **options: Any) -> Task:
    return replace(task, config=replace(task.config, track=[{"wandb": options}]))


def test_an_offline_run_holds_settings_history_and_scores(
    task_of: Callable[..., Task], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    task = tracked_by(task_of("linear", epochs=2), project="lab")
    record = stages.carry_out(task)
    assert capfd.readouterr() == ("", "")
    found = left_by(task)
    (run,) = [r.run for r in found if r.WhichOneof("record_type") == "run" and r.run.project]
    assert (run.project, run.display_name, run.run_group) == ("lab", "run/seed-0", "run")
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert config["model"] == "linear"
    assert config["train"]["epochs"] == 2

    steps = history(found)
    lines = [json.loads(line) for line in (task.folder / "metrics.jsonl").read_text().splitlines()]
    for name in ("loss", "lr"):
        assert [(s["epoch"], s[f"epoch/{name}"]) for s in steps if f"epoch/{name}" in s] == [
            (k["epoch"], k[name]) for k in lines
        ]
    accuracies = [s["epoch/validation/accuracy"] for s in steps if "epoch/validation/accuracy" in s]
    assert accuracies == [line["validation"]["accuracy"] for line in lines]
    assert [s["step"] for s in steps if "step/loss" in s] == [1, 2, 3, 4]
    (captions,) = [s["images/samples/captions"] for s in steps if "images/samples/captions" in s]
    assert all("called" in caption for caption in captions)
    assert [sum(s["weights/1.weight/values"]) for s in steps if "weights/1.weight/values" in s] == [640, 640]
    summaries = [r.summary for r in found if r.WhichOneof("record_type") == "summary"]
    final = {"/".join(i.nested_key) or i.key: i.value_json for summary in summaries for i in summary.update}
    assert json.loads(final["scores/test/accuracy"]) == record.scores["test"]["accuracy"].value


@pytest.mark.slow
def test_told_again_it_starts_anew(task_of: Callable[..., Task], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    task = task_of("linear", epochs=2)
    found = []
    for project in ("first", "second"):
        stages.carry_out(tracked_by(task, project=project))
        found.append(history(left_by(task)))
    told = [
        [(s["_step"], s.get("step"), s.get("step/loss"), s.get("epoch/loss")) for s in steps]
        for steps in found
    ]
    assert told[0] == told[1]
    assert [row[0] for row in told[0]] == list(range(len(told[0])))


def test_without_wandb_the_run_goes_on_and_says_what_to_install(
    task_of: Callable[..., Task], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    task = tracked_by(task_of("linear", epochs=1))
    with pytest.warns(Notice, match=r"wandb is left out .*pip install 'stresslens\[wandb\]'") as told:
        record = stages.carry_out(task)
    assert len(told) == 1
    assert record.status == "finished"


def test_the_environment_can_switch_it_off(
    task_of: Callable[..., Task], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    task = tracked_by(task_of("linear", epochs=1))
    assert stages.carry_out(task).status == "finished"
    assert not list((task.folder / "wandb").rglob("*.wandb"))
