"""Notices to the user, shown as sentences without code lines."""

from __future__ import annotations

import warnings

from stresslens.core.errors import Notice
from stresslens.core.text import readable

_plain = warnings.formatwarning


def notices_are_sentences() -> None:
    """From now on, a Notice is shown without the code line that raised it; other warnings as
    usual."""

    def shown(
        message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
    ) -> str:
        if issubclass(category, Notice):
            return f"stresslens: {readable(str(message))}\n"
        return _plain(message, category, filename, lineno, line)

    warnings.formatwarning = shown
