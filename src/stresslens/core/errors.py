"""What can go wrong, each with the exit code of the command line and a message a person can act on."""

from __future__ import annotations

import signal as signals
from collections.abc import Iterable
from dataclasses import dataclass


class StresslensError(Exception):
    """Base of everything stresslens raises on purpose; `str()` is the whole message, without a traceback."""

    exit_code = 1


class ConfigError(StresslensError):
    """A study, an option or a call that cannot be carried out as it is written."""

    exit_code = 2


class DataError(StresslensError):
    """Images or labels that cannot be used."""

    exit_code = 3


class TrainingDiverged(StresslensError):
    """A loss or a gradient that is not finite. `images` are the batch's indices in the training split."""

    exit_code = 4

    def __init__(self, message: str, images: list[int] | None = None) -> None:
        super().__init__(message)
        self.images = images or []


class GateNotMet(StresslensError):
    """A figure is below what was asked for (`--fail-under`)."""

    exit_code = 5


class Notice(UserWarning):
    """Something that a person should know, though the work goes on."""


class Stopped(BaseException):
    """A signal arrived; the work so far is saved and the same command goes on from there.

    Not an Exception, like KeyboardInterrupt: no handler of errors may take it for one.
    """

    def __init__(self, message: str, signal: int = signals.SIGTERM) -> None:
        super().__init__(message)
        self.signal = signal
        self.exit_code = 128 + signal


@dataclass(frozen=True)
class Problem:
    """One thing wrong at one place of a configuration; `path` is the keys that lead there."""

    path: tuple[str | int, ...]
    message: str


class Problems(ConfigError):
    """Several things wrong at once; whoever knows the file turns the paths into `file:line`."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems
        super().__init__(
            "\n".join(f"{'.'.join(map(str, p.path))}: {p.message}" if p.path else p.message for p in problems)
        )


def first_line(error: BaseException) -> str:
    """What an error says, in one line; its name where it says nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0]


MANY = 60
"""So many names are not listed one by one."""


def closest(name: str, valid: list[str]) -> str:
    """`; did you mean X?` when one of the valid names is near, and the valid names either way, or
    of very many the nearest."""
    from difflib import get_close_matches

    near = get_close_matches(name, valid, n=1, cutoff=0.6)
    hint = f"did you mean {near[0]!r}? " if near else ""
    if len(valid) > MANY:
        nearest = get_close_matches(name, valid, n=8, cutoff=0.3)
        return f"{hint}among the {len(valid)} valid: {', '.join(nearest or sorted(valid)[:8])}, …"
    return f"{hint}valid: {', '.join(sorted(valid)) or 'none'}"


def unknown_key(key: object, valid: Iterable[object], what: str = "unknown key") -> str:
    """The message for a key that is none of the valid ones, after `what`."""
    return f"{what}; {closest(str(key), [str(each) for each in valid])}"
