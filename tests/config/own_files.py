"""A user's own files of plug-ins."""

from __future__ import annotations

import textwrap
from pathlib import Path


def write(folder: Path, name: str, text: str) -> Path:
    """The file `name` in the folder, with the text without its common indent."""
    file = folder / name
    file.write_text(textwrap.dedent(text), encoding="utf-8")
    return file
