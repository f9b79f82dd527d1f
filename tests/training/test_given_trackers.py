"""Trackers that are written in a notebook: functions, objects, classes; they belong to no configuration."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from finished_runs import OPTIONS, SMALL

import stresslens as sl
from stresslens.core.errors import ConfigError, Notice
from stresslens.plugins import Scalars

ENTRIES: list[Any] = []


class Object:
    def __init__(self) -> None:
        self.entries: list[Any] = []
        self.closed = 0

    def log(self, entry: Any) -> None:
        self.entries.append(entry)

    def close(self) -> None:
        self.closed += 1


class OfFolder(Object):
    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.folder, self.config = folder, config
        ENTRIES.append(self)


def of_config(config: Mapping[str, Any]) -> Object:
    made = Object()
    ENTRIES.append((config["train"]["epochs"], made))
    return made


def epochs_of(entries: list[Any]) -> list[int]:
    return [each.at for each in entries if isinstance(each, Scalars) and each.by == "epoch"]


def trained(tmp_path: Path, **options: Any) -> sl.Run:
    return sl.train("linear", SMALL, out=tmp_path, **{**OPTIONS, "epochs": 2, **options})


def test_a_function_and_an_object_get_every_entry(tmp_path: Path) -> None:
    heard: list[Any] = []
    tracker = Object()
    run = trained(tmp_path, track=[heard.append, tracker])
    assert epochs_of(heard) == epochs_of(tracker.entries) == [1, 2]
    kinds = {type(entry).__name__ for entry in heard}
    assert {"Scalars", "Text", "Histograms", "Outcome", "Pictures"} <= kinds
    assert tracker.closed == 1
    assert run.config["track"] in (None, [])


def test_it_changes_nothing_and_is_no_setting(tmp_path: Path) -> None:
    plain = trained(tmp_path / "a" / "python")
    tracked = trained(tmp_path / "b" / "python", track=lambda entry: None)
    weights = [(run.folder / "model.safetensors").read_bytes() for run in (plain, tracked)]
    assert weights[0] == weights[1]
    assert plain.record["stages"] == tracked.record["stages"]
    stamp = (plain.folder / "model.safetensors").stat().st_mtime_ns
    heard: list[Any] = []
    again = trained(tmp_path / "a" / "python", track=heard.append)
    assert (again.folder / "model.safetensors").stat().st_mtime_ns == stamp, "it is the finished run"
    assert epochs_of(heard) == [1, 2], "a tracker that comes later gets what the files hold"


@pytest.mark.slow
def test_what_makes_a_tracker_gets_the_folder_and_the_settings(tmp_path: Path) -> None:
    ENTRIES.clear()
    run = trained(tmp_path, track=[OfFolder, of_config])
    (of_folder, (epochs, made)) = ENTRIES[0], ENTRIES[1]
    assert of_folder.folder == run.folder / "tracker-OfFolder"
    assert of_folder.folder.is_dir()
    assert epochs == of_folder.config["train"]["epochs"] == 2
    assert epochs_of(of_folder.entries) == epochs_of(made.entries) == [1, 2]


def writer(words: str) -> type[Object]:
    class Writer(Object):
        def __init__(self, folder: Path) -> None:
            super().__init__()
            (folder / "words.txt").write_text(words)

    return Writer


def test_trackers_of_one_name_have_folders_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = """
class Writer:
    def __init__(self, folder): (folder / "words.txt").write_text(__file__.rpartition("/")[2])
    def log(self, entry): pass
    def close(self): pass
"""
    for name in ("one.py", "two.py"):
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    run = trained(tmp_path, track=["one.py:Writer", "two.py:Writer", writer("three"), writer("four")])
    again = trained(tmp_path, track=["one.py:Writer", "two.py:Writer", writer("three"), writer("four")])
    assert again.folder == run.folder
    found = {file.parent.name: file.read_text() for file in run.folder.glob("tracker*/words.txt")}
    assert found == {
        "tracker-Writer": "one.py",
        "tracker-Writer-2": "two.py",
        "tracker-Writer-3": "three",
        "tracker-Writer-4": "four",
    }


def test_one_that_fails_is_left_out_and_told(tmp_path: Path) -> None:
    def failing(entry: Any) -> None:
        raise OSError("no space")

    heard: list[Any] = []
    with pytest.warns(Notice, match=r"the tracker failing \(1\) is left out and the run continues"):
        run = trained(tmp_path, track=[failing, heard.append])
    assert run.finished
    assert epochs_of(heard) == [1, 2]


@pytest.mark.parametrize("track", [5, [None], [object()]], ids=["number", "nothing", "object"])
def test_what_is_no_tracker_is_refused(track: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is no tracker; expected a plug-in by name, a function"):
        trained(tmp_path, track=track)


@pytest.mark.slow
def test_a_study_takes_them_in_this_process(tmp_path: Path) -> None:
    heard: list[Any] = []
    study = {"data": SMALL, "model": "linear", "train": OPTIONS, "runs": {"a": {}, "b": {"train.lr": 0.1}}}
    sl.run(study, out=tmp_path, track=heard.append)
    assert epochs_of(heard) == [1, 1]
    with pytest.raises(ConfigError, match="works in this process only; leave out jobs"):
        sl.run(study, out=tmp_path, track=heard.append, jobs=2)


@pytest.mark.slow
def test_named_ones_beside_them_are_settings(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "class T:\n    def log(self, entry):\n        with open('heard.txt', 'a') as file:\n"
        "            file.write(type(entry).__name__ + ' ')\n"
        "    def close(self): pass\ndef own(folder, config):\n    return T()\n"
    )
    heard: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        run = trained(tmp_path, track=["own.py:own", heard.append])
    assert "Scalars" in (tmp_path / "heard.txt").read_text()
    assert heard
    assert len(run.config["track"]) == 1
