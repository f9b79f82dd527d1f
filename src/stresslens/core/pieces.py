"""Work in pieces that are bounded in bytes: how many images at once, and fewer when memory runs
out."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

import torch
from torch import Tensor

from stresslens.core.errors import ConfigError, Notice, StresslensError

T = TypeVar("T")

BUDGET = 2**29
"""Bytes (512 MiB) that the images of a piece, and all that is computed from them, may take. The
environment variable `VARIABLE` sets another number."""
VARIABLE = "STRESSLENS_MEMORY"
UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
OUT_OF_MEMORY = (
    r"DefaultCPUAllocator: (can't allocate|not enough) memory"
    r"|out of memory|could not create a (primitive|memory)"
)
"""What torch and oneDNN say (the latter says no more, so it may have another reason)."""
FLOAT = 4
"""Bytes of a float32."""


def budget() -> int:
    """The bytes that a piece may take: `BUDGET`, or what the environment variable says.

    Raises ConfigError if that is not a size such as 256MB, 1GiB, or a number of bytes.
    """
    text = os.environ.get(VARIABLE, "")
    if not text.strip():
        return BUDGET
    number = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMG]I?B|)\s*", text.upper())
    size = int(float(number[1]) * UNITS[number[2]]) if number else 0
    if size < 1:
        raise ConfigError(f"{VARIABLE}={text!r}: expected a size such as 256MB or 1GiB, or a number of bytes")
    return size


def at_most(most: int, bytes_each: float) -> int:
    """The number of images in a piece, if each takes `bytes_each`: `most`, or else the largest power
    of two whose images keep the budget; at least 1.

    It does not depend on the memory that happens to be free, so that results do not either. Powers
    of two absorb small differences between measurements of other versions of torch.
    """
    fitting = int(budget() / max(bytes_each, 1))
    return most if fitting >= most else max(1, 1 << max(0, fitting.bit_length() - 1))


_listeners: ContextVar[tuple[Callable[[str], None], ...]] = ContextVar("listeners", default=())


@contextmanager
def hearing_of_shortages(listener: Callable[[str], None]) -> Iterator[None]:
    """Calls `listener` with a sentence whenever memory runs out inside the context, and a piece is
    computed in halves."""
    token = _listeners.set((*_listeners.get(), listener))
    try:
        yield
    finally:
        _listeners.reset(token)


def in_pieces(run: Callable[[slice], T], count: int, size: int) -> list[T]:
    """The results of `run` for rows 0 to `count`, `size` rows at a time; of no rows, one result.

    When memory runs out, on the CPU or the GPU, the work goes on with half as many rows at a time,
    and a Notice says it: sums of other lengths may round otherwise. `run` is then called again for
    the same rows. Raises StresslensError where not even one row fits, and else what `run` raises.
    """
    results: list[T] = []
    start = 0
    while start < count or not results:
        rows = slice(start, min(start + size, count))
        try:
            results.append(run(rows))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if rows.stop - rows.start <= 1:
                raise StresslensError(
                    f"there is not enough memory for a single image ({first_words(error)}); "
                    "close other programs, or take a smaller net or smaller images"
                ) from error
            shortage = first_words(error)
        else:
            start = max(rows.stop, start + 1)
            continue
        # outside the handler: the error holds the tensors of the pass that failed
        size = (rows.stop - rows.start) // 2
        _tell(f"memory ran out for {rows.stop - rows.start} images at a time ({shortage}); {size} at a time")
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    return results


class Rows:
    """Rows (count, …) that pieces of work fill one after the other, in one tensor made with the first
    of them: small results between large pieces would keep the memory that these free apart."""

    def __init__(self, count: int) -> None:
        self._count, self._filled = count, 0
        self._rows: Tensor | None = None

    def put(self, values: Tensor, first: int | None = None) -> None:
        """Copies values (n, …) to the rows from `first` on, by default behind those of the last call."""
        if self._rows is None:
            self._rows = values.new_empty((self._count, *values.shape[1:]))
        start = self._filled if first is None else first
        self._filled = start + len(values)
        self._rows[start : self._filled] = values

    @property
    def filled(self) -> Tensor:
        """The rows up to the end of the last call; of no call, an empty tensor."""
        return torch.empty(0) if self._rows is None else self._rows[: self._filled]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the machine, or its GPU, has no more memory."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and bool(re.search(OUT_OF_MEMORY, str(error)))


def first_words(error: BaseException) -> str:
    """What an allocator says, without its advice."""
    text = str(error).strip() or type(error).__name__
    return text.partition("\n")[0].rpartition("] . ")[2].partition(". ")[0][:120]


def _tell(sentence: str) -> None:
    warnings.warn(sentence, Notice, stacklevel=3)
    for listener in _listeners.get():
        listener(sentence)
