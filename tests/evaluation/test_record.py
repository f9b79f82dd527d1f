"""record.json as it is written by the stages of a run, and read again by whatever needs it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stresslens.core.data import Data
from stresslens.core.files import UnreadableRun, read_json, write_json
from stresslens.core.run_folder import RunFolder
from stresslens.evaluation.record import RunRecord, read_record, write_record
from stresslens.study import stages
from stresslens.training.task import Task

MADE_BEFORE = Path(__file__).parents[1] / "made_before" / "study" / "run" / "seed-0"


def changed(folder: RunFolder, change: Callable[[dict[str, Any]], Any]) -> RunRecord:
    values = read_json(folder.record)
    change(values)
    write_json(folder.record, values)
    return read_record(folder)


@pytest.mark.breadth(1)
@pytest.mark.parametrize("without", [None, "validation", "test"])
def test_a_record_is_read_back_equal_and_written_back_byte_for_byte(
    task_of: Callable[..., Task], small: Data, without: str | None
) -> None:
    task = task_of(data=replace(small, **{without: None}) if without else small)
    written, folder = stages.carry_out(task), RunFolder(task.folder)
    assert read_record(folder) == written
    held = folder.record.read_bytes()
    write_record(folder, read_record(folder))
    assert folder.record.read_bytes() == held


def test_a_record_of_the_first_version_is_written_back_byte_for_byte(tmp_path: Path) -> None:
    write_record(RunFolder(tmp_path), read_record(RunFolder(MADE_BEFORE)))
    assert (tmp_path / "record.json").read_bytes() == (MADE_BEFORE / "record.json").read_bytes()


def test_unknown_keys_are_harmless_and_stay(task_of: Callable[..., Task]) -> None:
    task = task_of()
    stages.carry_out(task)
    folder = RunFolder(task.folder)

    def add(values: dict[str, Any]) -> None:
        values["later"] = {"a": [1]}
        values["data"]["later"] = None
        values["data"]["findings"][0]["later"] = 2.5
        values["scores"]["test"]["accuracy"]["later"] = "x"

    record = changed(folder, add)
    assert stages.carry_out(task).status == "finished"
    record.message = "changed"
    write_record(folder, record)
    values = read_json(folder.record)
    assert (values["later"], values["data"]["later"], values["message"]) == ({"a": [1]}, None, "changed")
    assert list(values)[-1] == "later"


def test_missing_keys_are_harmless_and_stay_absent(task_of: Callable[..., Task]) -> None:
    task = task_of()
    stages.carry_out(task)
    folder = RunFolder(task.folder)
    kept = ("format", "status", "stages", "data")

    def leave_out(values: dict[str, Any]) -> None:
        for key in [key for key in values if key not in kept]:
            del values[key]
        del values["data"]["notes"]

    record = changed(folder, leave_out)
    assert (record.scores, record.training.epochs, record.layers) == ({}, None, None)
    write_record(folder, record)
    assert list(read_json(folder.record)) == [key for key in record.as_json() if key in kept]
    assert "notes" not in read_json(folder.record)["data"]


def test_a_new_key_comes_last_and_a_changed_one_stays_in_its_place() -> None:
    record = RunRecord.model_validate({"status": "running", "views": [], "data": {}, "message": "old"})
    record.robustness = ["a"]
    record.message = "new"
    assert json.dumps(record.as_json()) == (
        '{"status": "running", "views": [], "data": {}, "message": "new", "robustness": ["a"]}'
    )


def test_each_result_counts_once_as_a_read_of_test() -> None:
    record = RunRecord(status="finished", reads_of_test=1)
    record.count_reads("views", ["a", "b", "a"], "test")
    record.count_reads("views", ["b"], "test")
    record.count_reads("explanations", ["c"], "validation")
    assert (record.views, record.explanations, record.reads_of_test) == (["a", "b"], ["c"], 3)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([], "not a record of format 1; delete"),
        ({"format": 1, "status": "finished", "stages": {}}, "not a record of format 1; delete"),
        ({"format": 2, "status": "finished", "stages": {}, "data": {}}, "not a record of format 1: format"),
        ({"format": 1, "status": "finished", "stages": {}, "data": []}, "not a record of format 1: data"),
        (
            {"format": 1, "status": "finished", "stages": {}, "data": {}, "confusion": {"test": [[1]]}},
            "the confusion matrix of test is not 0 by 0",
        ),
    ],
)
def test_what_is_no_record_is_refused(tmp_path: Path, values: Any, said: str) -> None:
    write_json(tmp_path / "record.json", values)
    with pytest.raises(UnreadableRun, match=said):
        read_record(RunFolder(tmp_path))
