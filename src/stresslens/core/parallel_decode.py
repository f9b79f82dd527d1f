"""Parallel decoding of image files, in groups, by one process for each core."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from pathlib import Path

from stresslens.core.errors import StresslensError
from stresslens.core.image_files import DecodedFiles, Frame, Item, decode_group

GROUP, GROUP_BYTES = 256, 2**25
"""A process decodes at most so many files, and about so many bytes, at a time. A single group is
decoded in this process."""


def decoded_groups(
    items: Iterator[Item], count: int, total_bytes: int, frame: Frame, *, pixels: Path | None
) -> Iterator[DecodedFiles]:
    """Decodes `count` files of `total_bytes` in groups; `pixels` is as in `decode_group`.

    Raises StresslensError if a decoding process is killed.
    """
    batches = _batched(items, max(1, min(GROUP, GROUP_BYTES * count // max(1, total_bytes))))
    if count <= GROUP:
        yield from (decode_group(batch, frame, pixels=pixels) for batch in batches)
        return
    from joblib import Parallel, delayed

    abandoned = False

    def wanted() -> Iterator[list[Item]]:
        for batch in batches:
            if abandoned:
                return
            yield batch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else -1
    pool = Parallel(n_jobs=cores, return_as="generator", pre_dispatch="2*n_jobs")
    groups = pool(delayed(decode_group)(batch, frame, pixels=pixels) for batch in wanted())
    try:
        for group in groups:  # noqa: UP028 (`yield from` would close `groups` before it is emptied below)
            yield group
    except BrokenProcessPool as error:
        raise StresslensError(
            "a decoding process was killed from outside (out of memory?); run the same command again"
        ) from error
    finally:
        abandoned = True
        # Waits for the running groups: nothing may write into a folder that is removed.
        deque(groups, maxlen=0)


def _batched(items: Iterator[Item], size: int) -> Iterator[list[Item]]:
    while batch := list(islice(items, size)):
        yield batch
