"""Malformed input: files with bytes that somebody changed, and what a command may answer to it."""

from __future__ import annotations

import io
import re
import signal
import sys
import time
import warnings
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

from stresslens.cli.main import main

FEW = settings(
    max_examples=5,
    derandomize=True,
    deadline=None,
    suppress_health_check=[*HealthCheck],
    phases=[Phase.explicit, Phase.generate],  # a smaller example would take minutes to find
)
MANY = settings(FEW, max_examples=400)
PIECES = [
    *(b"", b"\x00", b"\x00" * 600, b"\xff" * 9, b"\x1b[31mred\x1b[0m", b"\x07", b"\r", b"\n", b'"', b"'"),
    *(
        b"PK\x03\x04",
        b"PK\x05\x06",
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xd8\xff\xe0",
        b"\x93NUMPY\x01\x00",
        b"II*\x00",
    ),
    *("\u202eevil".encode(), "é".encode("latin-1"), b"-1", b"9" * 400, b"1e999", b"nan", b"8/0", b"../../x"),
]
"""Bytes that mean something to a format or to a terminal."""


def changed(draw: Any, content: bytes) -> bytes:
    """The content after one to three changes."""
    data = bytearray(content)
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, max(len(data) - 1, 0)))
        change = draw(st.sampled_from(["flip", "cut", "insert", "replace", "twice", "zeros", "drop", "swap"]))
        length = draw(st.sampled_from([1, 4, 30, 500]))
        if change == "flip" and data:
            data[place] ^= 1 << draw(st.integers(0, 7))
        elif change == "cut":
            del data[place:]
        elif change == "insert":
            data[place:place] = draw(st.sampled_from(PIECES))
        elif change == "replace":
            piece = draw(st.sampled_from(PIECES))
            data[place : place + len(piece)] = piece
        elif change == "twice":
            data += bytes(data)
        elif change == "zeros":
            data[place : place + length] = bytes(min(length, len(data) - place))
        elif change == "drop":
            del data[place : place + length]
        elif change == "swap":
            data[:] = data[place:] + data[:place]
    return bytes(data)


def answer(*words: str, names: Sequence[str] = (), seconds: float = 10) -> tuple[int, str]:
    """The exit code of a command in this process, and what it said on standard error.

    Fails unless the answer is a result, or a message in printable text that holds one of `names`; both
    within a second on an idle machine (`seconds` of processor time are allowed).
    """
    out, err = io.StringIO(), io.StringIO()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    argv, sys.argv = sys.argv, ["stresslens", *words]
    began = time.process_time()
    code = 0
    try:
        with redirect_stdout(out), redirect_stderr(err), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            main()
    except SystemExit as end:
        code = int(end.code or 0)
    finally:
        sys.argv = argv
        for number, handler in before.items():
            signal.signal(number, handler)
    said = err.getvalue()
    assert time.process_time() - began < seconds, words
    assert code in (0, 2, 3, 5), (words, code, said)
    assert "Traceback" not in said
    for text in (said, out.getvalue()):
        assert re.sub(r"[\n\u200c\u200d]", "", text).isprintable(), (words, text)
    if code in (2, 3) and names:
        assert any(name in said for name in names), (words, said)
    return code, said


def trained_run(out: Path) -> Path:
    """The folder of a small run that the command line trains below `out`."""
    code, said = answer("train", "digits", "linear", "train.epochs=1", "--out", str(out), "-q", seconds=100)
    assert code == 0, said
    (found,) = out.glob("*/*/seed-0")
    return found


def written(folder: Path, name: str, content: bytes) -> Path:
    file = folder / name
    file.write_bytes(content)
    return file
