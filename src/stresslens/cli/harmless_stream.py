"""Standard output and standard error of the command line: what is printed there may hold text of
files, folders and arguments, which a terminal must not obey."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from stresslens.core.text import harmless


class HarmlessStream:
    """A text stream whose lines are `harmless`. `terminal` is the stream behind it, for what the
    program itself tells a terminal to do."""

    def __init__(self, terminal: TextIO) -> None:
        self.terminal = terminal
        if isinstance(terminal, io.TextIOWrapper):  # a locale without UTF-8 cannot write every character
            terminal.reconfigure(errors="replace")

    def write(self, text: str) -> int:
        self.terminal.write(re.sub(r"\r(?!\n)", "\ufffd", harmless(text, keep="\n\r\t")))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.terminal, name)


@contextmanager
def harmless_output() -> Iterator[None]:
    """Replaces standard output and standard error by harmless ones for a while."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = HarmlessStream(sys.stdout), HarmlessStream(sys.stderr)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def terminal_behind(stream: TextIO) -> TextIO:
    """The stream to which control sequences of the program itself are written."""
    return stream.terminal if isinstance(stream, HarmlessStream) else stream
