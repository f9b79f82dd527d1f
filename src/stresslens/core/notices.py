"""Notices to the user, shown as sentences without code lines."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from stresslens.core.errors import Notice
from stresslens.core.text import readable


def notices_are_sentences(words: Callable[[str], str] = str) -> None:
    """From now on, a Notice is shown without the code line that raised it, in the given `words`; other
    warnings as before."""
    before: Any = warnings.formatwarning

    def shown(
        message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
    ) -> str:
        if issubclass(category, Notice):
            return f"stresslens: {words(readable(str(message)))}\n"
        return str(before(message, category, filename, lineno, line))

    warnings.formatwarning = shown


@contextmanager
def sentences_inside(words: Callable[[str], str]) -> Iterator[None]:
    """As `notices_are_sentences`, until the end of the block."""
    before = warnings.formatwarning
    notices_are_sentences(words)
    try:
        yield
    finally:
        warnings.formatwarning = before
