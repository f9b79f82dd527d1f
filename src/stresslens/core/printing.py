"""Text from outside, fit to be shown."""

from __future__ import annotations

import unicodedata


def printable(name: str) -> str:
    """A file's name as text; bytes that are no UTF-8, and characters that move the cursor, become replacement characters."""
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return "".join("\ufffd" if unicodedata.category(c) == "Cc" else c for c in text)
