"""The folder where data sets without a path of their own lie."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from stresslens.core.cache_folder import cache_root

_root: ContextVar[Path | None] = ContextVar("root", default=None)


def data_root() -> Path:
    """The folder of data sets: that of `data_in`, or `STRESSLENS_DATA`, or else the user's cache folder."""
    if (root := _root.get()) is not None:
        return root
    return Path(os.environ["STRESSLENS_DATA"]) if os.environ.get("STRESSLENS_DATA") else cache_root()


@contextmanager
def data_in(root: Path) -> Iterator[None]:
    """Inside the context the data sets lie in `root`."""
    token = _root.set(root)
    try:
        yield
    finally:
        _root.reset(token)
