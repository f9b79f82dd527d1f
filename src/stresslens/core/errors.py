"""Exceptions with their exit codes on the command line, and "did you mean" hints."""

from __future__ import annotations

import copyreg
import signal as signals
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from stresslens.core.text import readable


class StresslensError(Exception):
    """Base of the errors that stresslens raises; `str()` is the whole message for the user, printable
    and of readable length whatever input it quotes."""

    exit_code = 1

    def __str__(self) -> str:
        return readable(Exception.__str__(self))

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy, also in another process, is made without the constructor, whose arguments are not
        kept."""
        return copyreg.__newobj__, (type(self), *self.args), vars(self)  # type: ignore[attr-defined]


class ConfigError(StresslensError):
    """A study, an option or a call is not valid."""

    exit_code = 2


class UnknownName(ConfigError, KeyError):
    """A result has nothing of this name. It is a KeyError too, so code that expects one finds it."""


class DataError(StresslensError):
    """Images or labels cannot be used."""

    exit_code = 3


class SizesDiffer(DataError):
    """The images differ in size, and no size is given; `proposed` is a side in pixels that suits them."""

    def __init__(self, message: str, proposed: int) -> None:
        super().__init__(message)
        self.proposed = proposed


class TrainingDiverged(StresslensError):
    """A loss or a gradient is not finite. `images` are the batch's indices in the training
    split."""

    exit_code = 4

    def __init__(self, message: str, images: list[int] | None = None) -> None:
        super().__init__(message)
        self.images = images or []


class ProcessLost(StresslensError):
    """A process of a distributed training has ended or is out of step, so that none can go on."""


class GateNotMet(StresslensError):
    """A score is below the required value (`--fail-under`)."""

    exit_code = 5


class Notice(UserWarning):
    """A warning to the user; the work continues."""


class Stopped(BaseException):
    """A signal arrived. The work so far is saved, and the same command resumes from there.

    Like KeyboardInterrupt it is not an Exception, so that no error handler catches it.
    """

    def __init__(self, message: str, signal: int = signals.SIGTERM) -> None:
        super().__init__(message)
        self.signal = signal
        self.exit_code = 128 + signal


@dataclass(frozen=True)
class Problem:
    """One mistake in a configuration; `path` is the keys that lead to it."""

    path: tuple[str | int, ...]
    message: str


class Problems(ConfigError):
    """Several mistakes in a configuration; the code that read the file turns paths into
    `file:line`."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems
        super().__init__(
            "\n".join(f"{'.'.join(map(str, p.path))}: {p.message}" if p.path else p.message for p in problems)
        )


Error = TypeVar("Error", bound=StresslensError)
P = ParamSpec("P")
T = TypeVar("T")


def reworded(error: Error, message: str) -> Error:
    """The error with another message; its class and whatever else it carries are the same."""
    again = copy(error)
    again.args = (message,)
    return again


@contextmanager
def naming(subject: str) -> Iterator[None]:
    """Puts the name of a file or a data set before the message of a ConfigError or a DataError that does
    not have it."""
    try:
        yield
    except (ConfigError, DataError) as error:
        if subject in str(error) or type(error) not in (ConfigError, DataError):
            raise
        raise reworded(error, f"{subject}: {error}") from error


def ends_at_caller(function: Callable[P, T]) -> Callable[P, T]:
    """The traceback of what the function raises on purpose ends at the line that calls it; what caused the
    error (`__cause__`) keeps its own."""

    @wraps(function)
    def call(*args: P.args, **options: P.kwargs) -> T:
        try:
            return function(*args, **options)
        except (StresslensError, Stopped) as error:
            error.__traceback__ = None
            raise

    return call


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or the name of its class if it has no message."""
    return (str(error).splitlines() or [type(error).__name__])[0]
