"""Temporary files and folders, which are renamed to their place when they are complete.

The process that writes one holds a lock on it. The lock ends with the process, even if it is killed,
and counts in other containers and on other machines that share the disk. What is not locked was left
by a process that is gone, and the next process that writes into the same folder removes it.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from filelock import lock_descriptor

LOCK = ".lock"
"""The file in a temporary folder that is locked."""


@contextmanager
def temporary_file(path: Path) -> Iterator[tuple[Path, IO[bytes]]]:
    """A new file beside `path`, open for writing, and its path.

    The caller renames it. After an error it is removed. Raises OSError.
    """
    remove_leftovers(path.parent, of=re.escape(path.name))
    file, partial = _new_locked_file(path)
    with file:
        try:
            yield partial, file
        except BaseException:
            with suppress(OSError):
                partial.unlink()
            raise


@contextmanager
def temporary_folder(path: Path) -> Iterator[Path]:
    """A new folder beside `path`, whose entries the caller renames. It is removed at the end.

    Raises OSError.
    """
    remove_leftovers(path.parent, of=re.escape(path.name))
    while True:
        partial = new_name(path)
        partial.mkdir()
        with suppress(FileNotFoundError):  # another process removed the folder before it was locked
            lock = (partial / LOCK).open("xb")
            _lock(lock)
            if _is_there(lock):
                break
            lock.close()
    with lock:
        try:
            yield partial
        finally:
            if sys.platform == "win32":  # an open file cannot be removed there
                lock.close()
            shutil.rmtree(partial, ignore_errors=True)


def remove_leftovers(folder: Path, *, of: str = ".+", below: bool = False) -> None:
    """Removes the temporary files and folders of processes that are gone, with `below` also those in
    all folders below.

    Of earlier versions, whose names end in the number of their process, only those that were to
    become a file `of` this name, a regular expression, are removed.
    """
    old = re.compile(rf"\.(?:{of}\.|partial-)(\d+)(?:-\w+)?")
    for path in _hidden(folder, below):
        with suppress(OSError):  # locked, gone by now, or of another user
            if _is_temporary(path):
                _remove_unless_locked(path)
            elif (named := old.fullmatch(path.name)) and not _is_running(int(named[1])):
                _remove(path)


def leftovers_of(path: Path) -> list[Path]:
    """The temporary files that were to become `path`."""
    return [p for p in _hidden(path.parent) if _is_temporary(p) and p.name.startswith(f".{path.name}.")]


def new_name(path: Path) -> Path:
    """A new name of a temporary file beside `path`."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")


def _hidden(folder: Path, below: bool = False) -> list[Path]:
    """The entries of a folder whose names begin with a dot."""
    found: list[Path] = []
    for place, folders, files in os.walk(folder):
        found += [Path(place, name) for name in (*folders, *files) if name.startswith(".")]
        if not below:
            break
    return found


def _is_temporary(path: Path) -> bool:
    return re.fullmatch(r"\..+\.[0-9a-f]{8}\.partial", path.name) is not None


def _new_locked_file(path: Path) -> tuple[IO[bytes], Path]:
    while True:
        partial = new_name(path)
        file = partial.open("xb")
        _lock(file)
        if _is_there(file):
            return file, partial
        file.close()  # another process removed the file before it was locked


def _lock(file: IO[bytes]) -> None:
    """Locks the file. Where the file system has no locks, nobody can remove the file either."""
    with suppress(OSError):
        lock_descriptor(file.fileno())


def _is_there(file: IO[bytes]) -> bool:
    """Whether an opened file has not been removed."""
    try:
        return os.fstat(file.fileno()).st_nlink > 0
    except OSError:  # removed on another machine
        return False


def _remove_unless_locked(path: Path) -> None:
    """Does nothing where another process holds the lock. Raises OSError."""
    with suppress(FileNotFoundError), (path / LOCK if path.is_dir() else path).open("r+b") as lock:
        if not lock_descriptor(lock.fileno(), blocking=False):
            return
        if sys.platform != "win32":  # an open file cannot be removed there
            _remove(path)
    if path.exists():  # or a folder that was not locked yet
        _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink()


def _is_running(process: int) -> bool:
    if sys.platform == "win32":  # earlier versions did not run there, and signal 0 is Ctrl-C
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OverflowError, PermissionError):
        return True
    return True
