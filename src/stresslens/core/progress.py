"""Progress reports of long work, sent to a listener that may show them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Listener = Callable[[str, int, int], None]
"""Called with what is being done, how many items are done, and how many there are."""

Forecaster = Callable[[str, float, str], None]
"""Called before long work with what will be done, about how many seconds it takes, and what is
quicker."""

_listener: ContextVar[Listener] = ContextVar("listener", default=lambda what, done, total: None)


def _unheard(what: str, seconds: float, quicker: str) -> None:
    pass


_forecaster: ContextVar[Forecaster] = ContextVar("forecaster", default=_unheard)


def advance(what: str, done: int, total: int) -> None:
    """Reports that `done` of `total` items are done."""
    _listener.get()(what, done, total)


def foretell(what: str, seconds: float, quicker: str) -> None:
    """Says before the work about how long it takes, and what is quicker."""
    _forecaster.get()(what, seconds, quicker)


@contextmanager
def listening(listener: Listener, forecaster: Forecaster = _unheard) -> Iterator[None]:
    """Sends the reports of `advance` and `foretell` to these listeners inside the context."""
    tokens = _listener.set(listener), _forecaster.set(forecaster)
    try:
        yield
    finally:
        _listener.reset(tokens[0])
        _forecaster.reset(tokens[1])


@contextmanager
def part(what: str, first: float, last: float, total: int) -> Iterator[None]:
    """Reports the work inside the context as a part of longer work: `what` goes from `first` to `last`
    of `total`."""
    outer = _listener.get()

    def hear(_: str, done: int, of: int) -> None:
        outer(what, round(first + (last - first) * min(1.0, done / max(1, of))), total)

    token = _listener.set(hear)
    try:
        yield
    finally:
        _listener.reset(token)
