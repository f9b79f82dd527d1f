"""Text for the terminal: printable file names, short names, durations, notices without code
lines."""

from __future__ import annotations

import math
import unicodedata
import warnings

from stresslens.core.errors import Notice

NOT_FINITE = "no answer (not finite)"
"""In place of a class, where a model's scores name none (`core.answers`)."""


def printable(name: str) -> str:
    """A file's name as printable text.

    Bytes that are not UTF-8, and control characters, become replacement characters.
    """
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return "".join("\ufffd" if unicodedata.category(c) == "Cc" else c for c in text)


_plain = warnings.formatwarning


def notices_are_sentences() -> None:
    """From now on, a Notice is shown without the code line that raised it; other warnings as
    usual."""

    def shown(
        message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
    ) -> str:
        sentence = issubclass(category, Notice)
        return f"stresslens: {message}\n" if sentence else _plain(message, category, filename, lineno, line)

    warnings.formatwarning = shown


def brief(name: str, length: int = 60) -> str:
    """A user's name for something, cut to `length` characters."""
    return name if len(name) <= length else f"{name[: length - 1]}…"


def duration(seconds: float | None) -> str:
    """`4.2 s`, `42 s`, `3 min 05 s`, `2 h 04 min`; a dash if unknown."""
    if seconds is None or not math.isfinite(seconds):
        return "–"
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{rest} s"
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
