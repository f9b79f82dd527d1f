"""Atomic file writes, and reading of JSON and npz files with clear errors."""

from __future__ import annotations

import hashlib
import io
import json
import os
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

import numpy as np

from stresslens.core.disk_errors import FULL, refusal
from stresslens.core.errors import ConfigError, StresslensError, first_line
from stresslens.core.temporary_files import temporary_file


class UnreadableRun(ConfigError):
    """Files of a run folder are missing, damaged, or of another format."""


def write_atomically(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Lets `write` fill a temporary file beside `path`, syncs it to disk, and renames it to `path`.

    If the disk is full or the folder cannot be written, raises StresslensError and keeps the old
    file.
    """
    try:
        replace_atomically(path, write)
    except (OSError, RuntimeError) as error:  # torch.save reports a full disk as a RuntimeError
        reason = refusal(error, path, _size_written_by(write))
        remedy = "free some space or choose" if FULL in reason else "choose"
        raise StresslensError(
            f"cannot write {path}: {reason}. The old file is unchanged; {remedy} another place (--out)"
        ) from error


def replace_atomically(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """As `write_atomically`, but raises the error as it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with temporary_file(path) as (partial, file):
        write(file)
        file.flush()
        os.fsync(file.fileno())
        if sys.platform == "win32":  # an open file cannot be renamed there
            file.close()
        partial.replace(path)


class _Counter(io.RawIOBase):
    """A file that keeps nothing but the number of bytes that were written."""

    size = 0

    def writable(self) -> bool:
        return True

    def write(self, content: Any) -> int:
        written = memoryview(content).nbytes
        self.size += written
        return written


def _size_written_by(write: Callable[[IO[bytes]], Any]) -> int | None:
    """How many bytes `write` writes; None where it fails for a reason of its own."""
    counter = _Counter()
    with suppress(Exception):
        write(counter)  # type: ignore[arg-type]
        return counter.size
    return None


def sync(path: Path) -> None:
    """Waits until a file, or the entries of a folder, are on the disk. Windows syncs no folders."""
    if sys.platform == "win32":
        if path.is_file():
            with path.open("r+b") as file:
                os.fsync(file.fileno())
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


_SEEK = threading.Lock()


def open_to_read(path: Path) -> int:
    """A descriptor of a file, for `read_into` and `read_at`. The caller closes it."""
    return os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))


def read_into(descriptor: int, buffer: memoryview, offset: int) -> int:
    """Reads bytes from this place of a file into the buffer, from any thread; their number."""
    if sys.platform != "win32":
        return os.preadv(descriptor, [buffer], offset)
    content = read_at(descriptor, len(buffer), offset)
    buffer[: len(content)] = content
    return len(content)


def read_at(descriptor: int, size: int, offset: int) -> bytes:
    """As many bytes from this place of a file, from any thread; fewer at its end."""
    if sys.platform != "win32":
        return os.pread(descriptor, size, offset)
    with _SEEK:
        os.lseek(descriptor, offset, os.SEEK_SET)
        return os.read(descriptor, size)


def write_bytes(path: Path, content: bytes) -> None:
    """As `write_atomically`."""
    write_atomically(path, lambda file: file.write(content))


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray], *, compressed: bool = False) -> None:
    """Writes an npz file, as `write_atomically`."""
    save = np.savez_compressed if compressed else np.savez
    named: dict[str, Any] = dict(arrays)
    write_atomically(path, lambda file: save(file, **named))


def write_json(path: Path, value: Any) -> None:
    text = json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False)
    write_bytes(path, text.encode())


def read_json(path: Path, remedy: str = "") -> Any:
    """The content of a JSON file. Raises UnreadableRun, which for a damaged file gives the remedy: how
    it is made anew."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UnreadableRun(f"there is no {path}") from None
    except (OSError, ValueError, RecursionError) as error:
        why = f"{path} cannot be read as JSON: {error}"
        raise UnreadableRun(f"{why}; {remedy}" if remedy else why) from error


def whole_lines(path: Path) -> list[bytes]:
    """The lines of a jsonl file, without a last line that is not complete; none without the file."""
    return path.read_bytes().split(b"\n")[:-1] if path.exists() else []


def read_arrays(path: Path, absent: str, only: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """The arrays of an npz file, or `only` the named ones.

    Raises UnreadableRun if it is damaged, or with the message `absent` if it does not exist.
    """
    try:
        with path.open("rb") as file:
            return arrays_in(file, path, only)
    except FileNotFoundError:
        raise UnreadableRun(absent) from None
    except OSError as error:
        raise UnreadableRun(f"{path} cannot be read: {first_line(error)}") from error


def arrays_in(file: IO[bytes], name: object, only: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """The arrays of an opened npz file; `name` is what an error calls it."""
    try:
        loaded = np.load(file, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            raise UnreadableRun(f"{name} holds one array; expected an npz archive of named arrays")
        with loaded as arrays:
            return {name: arrays[name] for name in (arrays.files if only is None else only)}
    except UnreadableRun:
        raise
    except Exception as error:  # zip, numpy and zlib each raise their own
        raise UnreadableRun(f"{name} cannot be read: {first_line(error)}") from error


def digest_of_file(path: Path) -> str:
    """64 hexadecimal digits (SHA-256) of a file's content; computed again only if the file has changed.
    Raises OSError."""
    facts = path.stat()
    return _digest_of(path.resolve(), facts.st_mtime_ns, facts.st_size)


@lru_cache(maxsize=64)
def _digest_of(file: Path, changed: int, size: int) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
