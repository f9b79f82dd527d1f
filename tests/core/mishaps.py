"""A full disk, and a file that runs code when it is opened."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any


def full(descriptor: int) -> None:
    """In place of os.fsync: the disk is full."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class Hostile:
    """A pickle that makes a folder when it is loaded."""

    def __init__(self, made: Path) -> None:
        self.made = made

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.made),)
