"""Temporary files: those of a living process stay, those of a dead one are removed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from stresslens.core.files import write_bytes
from stresslens.core.temporary_files import (
    leftovers_of,
    new_name,
    remove_leftovers,
    temporary_file,
    temporary_folder,
)

WRITER = """
import sys, time
from pathlib import Path
from stresslens.core.temporary_files import temporary_file, temporary_folder
with temporary_file(Path(sys.argv[1], "file")), temporary_folder(Path(sys.argv[1], "folder")) as folder:
    (folder / "inside").write_text("x")
    print("begun", flush=True)
    time.sleep(60)
"""


def temporary(folder: Path) -> list[str]:
    return sorted(path.name.split(".")[1] for path in folder.glob(".*.partial"))


def test_files_of_a_living_process_stay_and_those_of_a_killed_one_go(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "begun\n"
        write_bytes(tmp_path / "other", b"x")
        remove_leftovers(tmp_path)
        assert temporary(tmp_path) == ["file", "folder"]
        assert (next(tmp_path.glob(".folder.*")) / "inside").is_file()
        writer.kill()
    write_bytes(tmp_path / "other", b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


@pytest.mark.parametrize("below", [True, False])
def test_folders_below_are_cleaned_if_asked(tmp_path: Path, below: bool) -> None:
    (tmp_path / "a").mkdir()
    left = new_name(tmp_path / "a" / "file")
    left.write_text("half")
    remove_leftovers(tmp_path, below=below)
    assert left.exists() != below


def test_a_folder_that_was_never_locked_is_removed(tmp_path: Path) -> None:
    new_name(tmp_path / "folder").mkdir()
    with temporary_folder(tmp_path / "folder") as folder:
        assert list(tmp_path.iterdir()) == [folder]
    assert not list(tmp_path.iterdir())


def test_names_of_earlier_versions_and_files_of_others(tmp_path: Path) -> None:
    """`.NAME.PID` goes when NAME is written and the process is gone; other hidden files stay."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    theirs = {".env", f".config.{gone.pid}", ".x.partial", f".study.json.{os.getpid()}"}
    for name in (*theirs, f".study.json.{gone.pid}"):
        (tmp_path / name).write_text("x")
    write_bytes(tmp_path / "study.json", b"{}")
    assert {path.name for path in tmp_path.iterdir()} == theirs | {"study.json"}


def test_an_error_leaves_nothing_and_the_old_file_stays(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("old")
    with pytest.raises(KeyboardInterrupt), temporary_file(file):
        raise KeyboardInterrupt
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert file.read_text() == "old"


def test_what_was_to_become_a_file_is_found_by_its_name(tmp_path: Path) -> None:
    left = new_name(tmp_path / "a.json")
    for path in (left, new_name(tmp_path / "b.json"), tmp_path / ".a.json"):
        path.touch()
    assert leftovers_of(tmp_path / "a.json") == [left]
