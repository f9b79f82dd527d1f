"""Progress reports of long work, sent to a listener that may show them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Listener = Callable[[str, int, int], None]
"""Called with what is being done, how many items are done, and how many there are."""

_listener: ContextVar[Listener] = ContextVar("listener", default=lambda what, done, total: None)


def advance(what: str, done: int, total: int) -> None:
    """Reports that `done` of `total` items are done."""
    _listener.get()(what, done, total)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Sends the reports of `advance` to this listener inside the context."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)
