"""What reaches the top of the command line: one message, and no traceback on the terminal."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from stresslens.cli.main import main
from stresslens.cli.terminal import print_json


def said(
    command: Callable[[], object], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> str:
    monkeypatch.setattr(signal, "signal", lambda number, handler: None)
    with pytest.raises(SystemExit) as end:
        main(command)
    assert end.value.code == 1
    return capsys.readouterr().err


def test_an_unexpected_error_is_one_line_and_a_file(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def command() -> None:
        raise ZeroDivisionError("\x1b[31mno\nmore")

    line = said(command, capsys, monkeypatch)
    assert line.startswith(
        "stresslens: unexpected ZeroDivisionError: �[31mno. This is a mistake of stresslens; "
    )
    assert line.count("\n") == 1
    file = Path(line.rpartition(" in ")[2].strip())
    assert "in command" in file.read_text()
    file.unlink()


@pytest.mark.parametrize(
    ("number", "words"), [(errno.ENOSPC, "the disk is full: "), (errno.EACCES, "permission denied")]
)
def test_what_the_system_refuses(
    number: int,
    words: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    def command() -> None:
        raise OSError(number, os.strerror(number), str(tmp_path / "x"))

    assert said(command, capsys, monkeypatch).startswith(f"stresslens: {tmp_path / 'x'}: {words}")


def test_json_keeps_every_character_and_shows_none_that_a_terminal_obeys(
    capsys: pytest.CaptureFixture[str],
) -> None:
    value = {"name": "\x1b[31m\u202eé漢\x7f"}
    print_json(value)
    text = capsys.readouterr().out
    assert json.loads(text) == value
    assert all(line.isprintable() for line in text.splitlines())


@pytest.mark.slow
def test_a_reader_that_ends_early_is_no_error() -> None:
    command = [sys.executable, "-m", "stresslens", "list", "attacks"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    error = process.stderr.read().decode()
    process.stderr.close()
    assert process.wait() == 141
    assert error == ""
