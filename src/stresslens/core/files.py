"""Files written whole or not at all, and read with a clear error."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import numpy as np

from stresslens.core.errors import ConfigError, StresslensError, first_line


class UnreadableRun(ConfigError):
    """A run folder whose files are missing, damaged or not what they claim to be."""


def write_atomically(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """`write` fills a file beside `path`, which takes its place only once it is whole and on the disk.

    Raises StresslensError, leaving the old file, when the disk is full or the folder cannot be written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except (OSError, RuntimeError) as error:  # torch.save reports a full disk as a RuntimeError
        reason = error.strerror if isinstance(error, OSError) else first_line(error)
        raise StresslensError(
            f"cannot write {path}: {reason}. What was there before is unharmed; free or change the place (--out)"
        ) from error
    finally:
        with suppress(OSError):
            partial.unlink()


def write_json(path: Path, value: Any) -> None:
    text = json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False)
    write_atomically(path, lambda file: file.write(text.encode()))


def read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UnreadableRun(f"there is no {path}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UnreadableRun(f"{path} cannot be read as JSON: {error}") from error


def read_arrays(path: Path, absent: str, only: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """The arrays of an npz file, or `only` some. Raises UnreadableRun when it is damaged, or saying
    `absent` when there is none."""
    try:
        with path.open("rb") as file:
            return arrays_in(file, path, only)
    except FileNotFoundError:
        raise UnreadableRun(absent) from None
    except OSError as error:
        raise UnreadableRun(f"{path} cannot be read: {first_line(error)}") from error


def arrays_in(file: IO[bytes], name: object, only: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """The same of an opened file, whose `name` an error tells."""
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in (arrays.files if only is None else only)}
    except Exception as error:  # zip, numpy and zlib each raise their own
        raise UnreadableRun(f"{name} cannot be read: {first_line(error)}") from error
