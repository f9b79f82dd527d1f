"""The check of a folder of decoded images: does it hold what was written?

A power cut, a full disk or a copy that stopped can leave zeros where pixels were.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stresslens.core.files import UnreadableRun, read_at, read_json
from stresslens.core.image_files import digest

PIECE = 2**24
"""Bytes that one thread reads at a time."""


def damage_in(folder: Path) -> str | None:
    """What is damaged in a folder of the cache, in words; None if all is as it was written.

    Every byte is read and compared with the digest of its image (BLAKE2b, a thread for each core). A
    folder that was whole is not read again by this process unless a file changes.
    """
    files = [folder / name for name in ("meta.json", "facts.npy", "pixels", "encoded")]
    facts = [file.stat() for file in files if file.exists()]
    return _damage(folder, tuple((f.st_ino, f.st_size, f.st_mtime_ns, f.st_ctime_ns) for f in facts))


@lru_cache(maxsize=64)
def _damage(folder: Path, stamp: tuple[tuple[int, ...], ...]) -> str | None:
    try:
        meta = read_json(folder / "meta.json")
        content = (folder / "facts.npy").read_bytes()
        if meta.get("facts_digest") not in (None, digest(content).hex()):
            return "its list of images is not as it was written"
        facts = np.load(folder / "facts.npy", allow_pickle=False)
        places = np.flatnonzero(facts["bytes"])
        if (folder / "pixels").exists():
            file, expected = folder / "pixels", facts["pixel_digest"][places]
            length = int(np.prod([meta["frame"]["channels"], *meta["frame"]["size"]]))
            starts, lengths = places * length, np.full(len(places), length)
        else:
            file, expected = folder / "encoded", facts["file_digest"][places]
            starts, lengths = facts["start"][places], facts["bytes"][places]
        wrong = _differing(file, starts, lengths, expected)
        return f"{wrong} of its {len(places)} images are not as they were written" if wrong else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, UnreadableRun) as error:
        return f"it cannot be read ({error})"


def _differing(
    file: Path, starts: NDArray[np.int64], lengths: NDArray[np.int64], expected: NDArray[np.void]
) -> int:
    """The number of parts of a file whose digest is not the expected one."""
    with file.open("rb") as opened, ThreadPoolExecutor(os.cpu_count()) as pool:

        def count(rows: slice) -> int:
            first, last = int(starts[rows][0]), int((starts[rows] + lengths[rows]).max())
            content = memoryview(read_at(opened.fileno(), last - first, first))
            parts = zip(starts[rows] - first, lengths[rows], expected[rows])
            return sum(digest(content[s : s + n]) != known.tobytes() for s, n, known in parts)

        return sum(pool.map(count, _pieces(lengths)))


def _pieces(lengths: NDArray[np.int64]) -> Iterator[slice]:
    """Neighbouring parts that are about PIECE bytes together."""
    if not len(lengths):
        return
    piece_of = np.cumsum(lengths) // PIECE
    edges = [0, *(np.flatnonzero(np.diff(piece_of)) + 1).tolist(), len(lengths)]
    yield from (slice(a, b) for a, b in itertools.pairwise(edges))
