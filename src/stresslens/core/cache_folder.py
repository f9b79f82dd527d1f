"""The cache folder: what can be made again (decoded images, downloads, findings) is kept there.

Where it cannot be written, a folder among the temporary files takes its place.
"""

from __future__ import annotations

import os
import shutil
import stat
import sys
import tempfile
import warnings
from functools import cache
from pathlib import Path

from stresslens.core.errors import DataError, Notice


def cache_root() -> Path:
    """The user's cache folder. It may not be there, and it may not be writable."""
    import platformdirs

    return Path(platformdirs.user_cache_dir("stresslens")) / "data"


def readable_caches() -> list[Path]:
    """The cache folder and the one that takes its place, as far as they can be read."""
    other = _temporary_root()
    folders = [cache_root(), *([other] if other.is_dir() and _is_own(other) else [])]
    return [folder for folder in folders if os.access(folder, os.R_OK | os.X_OK)]


def writable_cache(part: str, needed: float = 0, what: str = "") -> Path:
    """The folder `part` of the cache folder if it can be written and has `needed` bytes free, or else,
    with a Notice, of a folder among the temporary files that only this user can write. `what` takes
    the bytes, for messages.

    Raises DataError where neither can be used.
    """
    first, second = cache_root() / part, _temporary_root() / part
    reason = _why_not(first, needed)
    if reason is None:
        return first
    other = _why_not(second, needed)
    if other is None:
        _tell(cache_root(), _temporary_root(), reason)
        return second
    remedy = (
        "Free some space, set XDG_CACHE_HOME to a folder on another disk, take a smaller `size`, "
        "or lower `cache_gb` to keep the files as they are"
        if needed
        else "Set XDG_CACHE_HOME to another folder"
    )
    told = f"{what}: " if what else ""
    raise DataError(f"{told}the cache folder {first} {reason}, and {second} {other}. {remedy}")


def cache_problem() -> str | None:
    """Why the cache folder cannot be written, in words; None if it can."""
    return _why_not(cache_root(), 0)


def _temporary_root() -> Path:
    if sys.platform == "win32":  # where each user has temporary files of their own
        return Path(tempfile.gettempdir()) / "stresslens"
    return Path(tempfile.gettempdir()) / f"stresslens-{os.getuid()}"


def _why_not(folder: Path, needed: float) -> str | None:
    """Why a folder cannot hold `needed` bytes, in words; None if it can. It is made if it is not there."""
    try:
        if _temporary_root() in (folder, *folder.parents):
            _temporary_root().mkdir(exist_ok=True, mode=0o700)
            if not _is_own(_temporary_root()):
                return "can be written by others"
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"0")
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return f"cannot be written ({error.strerror or error})"
    return f"has {free / 1e9:.1f} GB free" if needed > free else None


def _is_own(folder: Path) -> bool:
    """Whether a folder is the user's, and nobody else can write into it."""
    facts = folder.lstat()
    if sys.platform == "win32":
        return stat.S_ISDIR(facts.st_mode)
    return stat.S_ISDIR(facts.st_mode) and facts.st_uid == os.getuid() and not facts.st_mode & 0o022


@cache
def _tell(first: Path, second: Path, reason: str) -> None:
    """Says once in a process which folder is used instead."""
    warnings.warn(
        f"the cache folder {first} {reason}; {second} is used instead (XDG_CACHE_HOME moves the cache)",
        Notice,
        stacklevel=4,
    )
