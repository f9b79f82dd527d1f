"""Long work says how far it is; who listens decides whether and where it shows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Listener = Callable[[str, int, int], None]
"""What is being done, how many are done, of how many."""

_listener: ContextVar[Listener] = ContextVar("listener", default=lambda what, done, total: None)


def advance(what: str, done: int, total: int) -> None:
    _listener.get()(what, done, total)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Sends what `advance` is told to this listener for the duration."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)
