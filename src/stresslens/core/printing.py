"""Text from outside and warnings, fit to be shown."""

from __future__ import annotations

import unicodedata
import warnings

from stresslens.core.errors import Notice


def printable(name: str) -> str:
    """A file's name as text; bytes that are no UTF-8, and characters that move the cursor, become replacement characters."""
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return "".join("\ufffd" if unicodedata.category(c) == "Cc" else c for c in text)


_plain = warnings.formatwarning


def notices_are_sentences() -> None:
    """From now on a Notice is shown as what it says, without the line of code that it came from; other warnings as ever."""

    def shown(message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None) -> str:
        sentence = issubclass(category, Notice)
        return f"stresslens: {message}\n" if sentence else _plain(message, category, filename, lineno, line)

    warnings.formatwarning = shown


def brief(name: str, length: int = 60) -> str:
    """A name that somebody chose, cut where it is very long."""
    return name if len(name) <= length else f"{name[: length - 1]}…"
