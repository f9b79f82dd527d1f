"""Choices that were measured once on this machine: one small JSON file each, in the user's cache
folder."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any, Literal

from filelock import lock_descriptor

from stresslens.core.cache_folder import cache_root
from stresslens.core.devices import MemoryFormat, Precision
from stresslens.core.errors import ConfigError, Notice, StresslensError
from stresslens.core.files import UnreadableRun, write_json
from stresslens.core.fingerprint import fingerprint_of
from stresslens.core.json_file import JsonFile

SWITCH = "STRESSLENS_MEASURE"
"""The environment variable that, set to 0, has everything computed as the fixed rules say."""


@dataclass(frozen=True)
class ComputeChoice:
    """How a model is computed: the memory format in each precision that it can use, and the
    precision. `gains` are the ratios that it was chosen by, `seconds` are times that it depends on."""

    formats: Mapping[Precision, MemoryFormat]
    precision: Precision
    gains: Mapping[str, list[float]] = field(default_factory=dict, compare=False)
    seconds: Mapping[str, float] = field(default_factory=dict, compare=False)
    stack: bool = False
    """Whether several runs train in one program."""


class KeptChoice(JsonFile):
    """A choice, what it is about, and the ratios of times that it was made by. The name of the file
    is the fingerprint of `about`."""

    LATER_KEYS = frozenset({"stack"})

    format: Literal[1]
    about: dict[str, Any]
    formats: dict[Precision, MemoryFormat]
    precision: Precision
    gains: dict[str, list[float]]
    decided: str
    seconds: dict[str, float] = {}
    stack: bool = False

    LATER_KEYS = frozenset({"seconds", "stack"})

    @property
    def choice(self) -> ComputeChoice:
        return ComputeChoice(self.formats, self.precision, self.gains, self.seconds, self.stack)

    @property
    def told(self) -> tuple[str, str, str]:
        """What it is about, what was chosen, and how many times as fast one was as another, in words."""
        of = f"{self.about.get('what')} of {self.about.get('model')} at {self.about.get('shape')}"
        gains = [f"{way}: {median(ratios):.2f}" for way, ratios in self.gains.items() if ratios]
        gains += [f"{what}: {seconds:.2g} s" for what, seconds in self.seconds.items()]
        return (
            f"{of}, batch {self.about.get('batch')}",
            f"{self.precision}, {self.formats.get(self.precision)}{', in one program' * self.stack}",
            "; ".join(gains),
        )


def choices_folder() -> Path:
    """The folder of the kept choices. Without a file, its choice is made anew."""
    return cache_root().parent / "compute"


def measuring_allowed() -> bool:
    """Whether choices may be measured. Raises ConfigError for another value of STRESSLENS_MEASURE
    than 0 and 1."""
    value = os.environ.get(SWITCH, "")
    if value not in ("", "0", "1"):
        raise ConfigError(
            f"{SWITCH}={value!r}: expected 0 (fixed rules, nothing is measured) or 1 (the default)"
        )
    return value != "0"


def kept_or_made(about: Mapping[str, Any], make: Callable[[], ComputeChoice]) -> ComputeChoice | None:
    """The choice about this that was kept first, or else what `make` returns, which is kept.

    None, with a Notice, where nothing can be kept: a choice that the next run does not know must not
    depend on a measurement. Of several processes, the first that writes decides for all. A damaged
    file is replaced, with a Notice. An error of `make` is raised, and nothing is kept.
    """
    path = choices_folder() / f"{fingerprint_of(about)}.json"
    if (known := _read(path, about)) is not None:
        return known.choice
    lock = path.with_name(".lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.touch()
    except OSError as error:
        _say_not_kept(path.parent, error.strerror or str(error))
        return None
    made = make()
    try:
        with lock.open("a") as held:
            lock_descriptor(held.fileno())
            if (known := _read(path, about, quiet=True)) is not None:
                return known.choice
            kept = KeptChoice(
                format=1,
                about=dict(about),
                formats=dict(made.formats),
                precision=made.precision,
                gains=dict(made.gains),
                seconds=dict(made.seconds),
                stack=made.stack,
                decided=datetime.now(UTC).isoformat(timespec="seconds"),
            )
            write_json(path, kept.as_json())
    except (OSError, StresslensError) as error:
        _say_not_kept(path.parent, (error.strerror if isinstance(error, OSError) else None) or str(error))
        return None
    return made


def kept_choices() -> Iterator[tuple[Path, KeptChoice | None]]:
    """Every file of a kept choice with what it holds; None if it is damaged."""
    for path in sorted(choices_folder().glob("*.json")):
        try:
            yield path, KeptChoice.read(path)
        except UnreadableRun:
            yield path, None


def choice_as_json(path: Path, kept: KeptChoice | None) -> dict[str, Any]:
    """A file of a kept choice, as plain values."""
    return {"file": str(path)} | (kept.as_json() if kept is not None else {"damaged": True})


def _read(path: Path, about: Mapping[str, Any], *, quiet: bool = False) -> KeptChoice | None:
    """The kept choice in a file. None where there is none, and, with a Notice, where it is damaged."""
    try:
        if not os.path.lexists(path):
            return None
        kept = KeptChoice.read(path)
        if fingerprint_of(kept.about) != fingerprint_of(about):
            raise UnreadableRun(f"{path} is about something else than its name says")
    except UnreadableRun as error:
        if not quiet:
            warnings.warn(f"{error}; the choice that it kept is made anew", Notice, stacklevel=3)
        return None
    return kept


@cache
def _say_not_kept(folder: Path, why: str) -> None:
    """Says once that choices cannot be kept."""
    warnings.warn(
        f"cannot write to {folder} ({why}), where a measured choice of precision and memory format would "
        "be kept; so nothing is measured, and the fixed rules decide",
        Notice,
        stacklevel=3,
    )
