"""Why the system refused to write or open a file, in words: a full disk, a read-only one, a name
that is too long."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

from stresslens.core.errors import first_line

FULL = "the disk is full"
REASONS = {
    errno.ENOSPC: FULL,
    errno.EDQUOT: "your quota of this disk is used up",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.EFBIG: "it would be larger than a file may be here (ulimit -f)",
    errno.ENAMETOOLONG: "the name is longer than a file's name may be",
    errno.EMFILE: "too many files are open (ulimit -n)",
    errno.EIO: "the disk has an input/output error",
}


def os_error_behind(error: BaseException) -> OSError | None:
    """The error of the system that led to this one. torch reports a write that failed as a
    RuntimeError about positions in its archive."""
    behind: BaseException | None = error
    while behind is not None and not isinstance(behind, OSError):
        behind = behind.__cause__ or behind.__context__
    return behind


def refusal(error: BaseException, path: Path | None = None, needed: int | None = None) -> str:
    """Why the system refused something, without the path. For a full disk also how many bytes are
    `needed`, if known, and how many are free where `path` is."""
    cause = os_error_behind(error)
    if cause is None or cause.errno is None:
        return first_line(error)
    reason = REASONS.get(cause.errno, os.strerror(cause.errno))
    if reason != FULL or path is None:
        return reason
    folder = next((each for each in (path.parent, *path.parents) if each.is_dir()), Path.cwd())
    needs = "" if needed is None else f"it needs {_megabytes(needed)}, "
    return f"{reason}: {needs}{_megabytes(shutil.disk_usage(folder).free)} are free"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.{0 if size >= 1e7 else 1}f} MB" if size >= 1e5 else "less than 0.1 MB"
