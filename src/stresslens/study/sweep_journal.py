"""The journal of a sweep: one JSON line for each thing that happens to a trial.

Only one process writes it, and it stays readable after any kill.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from numpy.random import RandomState

from stresslens.comparison.sweep_file import TrialStatus
from stresslens.config.old_words import settings_in_todays_words, settings_in_words_of_0_1
from stresslens.config.search_space import Number, Sweep, constraints_of, space_settings
from stresslens.config.sweep_validation import allowed, recipe_with
from stresslens.core.draws import mix
from stresslens.core.errors import Notice
from stresslens.core.files import write_bytes
from stresslens.evaluation.record import Failure
from stresslens.study.sweep_events import (
    Event,
    RungReached,
    TrialBegan,
    TrialEnded,
    TrialFailed,
    TrialState,
    add_event,
    event_of,
    events_of_optuna,
    line_of,
)
from stresslens.study.tpe_sampler import DrawnTrial, tpe_draw

TRIES = 1000
"""Draws of the method that may violate the constraints. After these, settings are drawn at
random until the constraints hold."""

JOURNAL = "journal.jsonl"
OPTUNAS_JOURNAL = "journal.log"
"""The journal of versions up to 0.3.0. It is read once, and then kept under `READ`."""
READ = "journal.optuna.log"


class SweepJournal:
    """The trials of a sweep by number. The settings of a trial depend only on the sweep's seed, the
    number and the earlier trials. Of a journal with more trials than the sweep has, the first count."""

    def __init__(
        self, folder: Path, sweep: Sweep, values: Mapping[str, Any], base: Path, *, largest: bool
    ) -> None:
        """Opens or creates the journal in the folder of the trials. `values` are the plain values of the
        configuration without the settings; `largest` says whether a larger value is better. What is
        damaged at the end of the file is left out, with a Notice."""
        self._path, self._sweep, self._values, self._base = folder / JOURNAL, sweep, values, base
        self._settings, self._constraints = space_settings(sweep, []), constraints_of(sweep, [])
        self._largest = largest
        if not self._path.exists() and (folder / OPTUNAS_JOURNAL).exists():
            events = _mended(folder / OPTUNAS_JOURNAL, events_of_optuna)
            write_bytes(self._path, b"".join(map(line_of, events)))
        with suppress(FileNotFoundError):
            (folder / OPTUNAS_JOURNAL).replace(folder / READ)
        self._all: list[TrialState] = []
        for event in _mended(self._path, lambda line, trials: iter([event_of(line)])):
            add_event(self._all, event)

    @property
    def _trials(self) -> list[TrialState]:
        return self._all[: self._sweep.size]

    def __contains__(self, number: int) -> bool:
        """Whether this sweep asks for the settings of a trial. Those that TPE drew are only compared
        with the space, because they depend on how many trials were under way."""
        drawn, settings = self._trials[number].drawn, self.settings(number)
        if drawn.keys() != {_stored(setting.key) for setting in self._settings}:
            return False
        if self._sweep.settings is not None:
            return settings == self._sweep.settings[number]
        if self._sweep.method != "tpe":
            return self._drawn(number)[1] == settings
        pairs = [(setting, drawn[_stored(setting.key)]) for setting in self._settings]
        return all(setting.holds(number) for setting, number in pairs) and settings == {
            setting.key: setting.value(number) for setting, number in pairs
        }

    def __len__(self) -> int:
        return len(self._trials)

    def ask(self) -> int:
        """Adds a new trial with its settings to the journal, and returns its number."""
        number = len(self)
        listed = self._sweep.settings
        drawn, settings = self._drawn(number) if listed is None else ({}, listed[number])
        stored = {_stored(key): value for key, value in drawn.items()}
        self._add(TrialBegan(trial=number, settings=settings_in_words_of_0_1(settings), drawn=stored))
        return number

    def _drawn(self, number: int) -> tuple[dict[str, Number], dict[str, Any]]:
        """The numbers that the method draws, and their settings, which satisfy the constraints and
        give a valid configuration."""
        seed = mix(self._sweep.seed, number) % 2**32
        numbers = RandomState(seed)

        def at_random() -> dict[str, Number]:
            return {setting.key: setting.number(numbers) for setting in self._settings}

        draw = self._tpe_draw(seed) if self._sweep.method == "tpe" else at_random
        tries = 0
        while True:
            drawn = draw() if tries < TRIES else at_random()
            settings = {setting.key: setting.value(drawn[setting.key]) for setting in self._settings}
            if allowed(self._values, settings, self._constraints) and recipe_with(
                self._values, settings, {}, self._base, []
            ):
                return drawn, settings
            tries += 1

    def _tpe_draw(self, seed: int) -> Callable[[], dict[str, Number]]:
        keys = [setting.key for setting in self._settings]
        trials = [
            DrawnTrial({key: trial.drawn[_stored(key)] for key in keys}, trial.ended, trial.value)
            for trial in self._all
        ]
        return tpe_draw(self._settings, trials, seed, largest=self._largest)

    def settings(self, number: int) -> dict[str, Any]:
        return settings_in_todays_words(self._trials[number].settings)

    @property
    def running(self) -> list[int]:
        """The numbers of the trials without a result, ascending."""
        return [number for number, trial in enumerate(self._trials) if not trial.ended]

    def note(self, number: int, failure: Failure) -> None:
        """Records why a trial failed, before its end."""
        self._add(TrialFailed(trial=number, failure=failure))

    def failure(self, number: int) -> Failure | None:
        """Why a trial failed; None where it did not."""
        return self._trials[number].failure

    def tell(self, number: int, value: float | None) -> None:
        """Records the end of a trial: its value, or None where it failed or was left out."""
        self._add(TrialEnded(trial=number, value=_finite(value)))

    def at_rung(self, epochs: int) -> dict[int, float]:
        """The values of the trials that reached the rung after `epochs` epochs; the worst where a
        trial failed."""
        worst = -math.inf if self._largest else math.inf
        reached = {n: t.rungs[epochs] for n, t in enumerate(self._trials) if epochs in t.rungs}
        return {number: worst if value is None else value for number, value in reached.items()}

    def report(self, number: int, epochs: int, value: float | None) -> None:
        """Records a trial's value at the rung after `epochs` epochs; None where it failed."""
        self._add(RungReached(trial=number, epochs=epochs, value=_finite(value)))

    def status(self, number: int) -> TrialStatus:
        """The status of a trial; `left out` means by halving, or that it diverged in version 0.1.0."""
        trial = self._trials[number]
        if not trial.ended:
            return "running"
        if trial.failure is not None:
            return "diverged" if trial.failure.is_divergence else "failed"
        return "left out" if trial.value is None else "finished"

    def value(self, number: int) -> float | None:
        return self._trials[number].value

    @property
    def ended(self) -> int:
        """The number of trials that have ended."""
        return len(self) - len(self.running)

    @property
    def best(self) -> int | None:
        """The trial with the best value; of equal trials the first. None before any has
        finished."""
        values = {number: t.value for number, t in enumerate(self._trials) if t.value is not None}
        sign = 1 if self._largest else -1
        return max(values, key=lambda number: sign * values[number]) if values else None

    def set_aside(self) -> None:
        """Keeps the journal under another name, so that the next one begins anew."""
        self._path.replace(self._path.with_name(f"{JOURNAL}.failed"))

    def _add(self, event: Event) -> None:
        with self._path.open("ab") as file:
            file.write(line_of(event))
            file.flush()
            os.fsync(file.fileno())
        add_event(self._all, event)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def has_journal(folder: Path) -> bool:
    """Whether the folder of the trials holds a journal."""
    return any((folder / name).exists() for name in (JOURNAL, OPTUNAS_JOURNAL))


def _mended(path: Path, events_in: Callable[[bytes, int], Iterator[Event]]) -> list[Event]:
    """The events of a journal up to the first line that is not valid, each once; none without the file.

    Later lines are removed. The damaged file is kept beside it, with a Notice. A half-written last line,
    as a kill leaves it, only goes: the next line would be appended to it.
    """
    written = path.read_bytes() if path.exists() else b""
    whole = written[: written.rfind(b"\n") + 1].splitlines(keepends=True)
    kept: list[bytes] = []
    events: list[Event] = []
    trials: list[TrialState] = []
    for line in dict.fromkeys(whole):
        try:
            found = list(events_in(line, len(trials)))
            for event in found:
                add_event(trials, event)
        except ValueError:
            break
        kept.append(line)
        events += found
    if kept != whole:
        beside = path.with_name(f"{path.name}.damaged")
        write_bytes(beside, written)
        warnings.warn(
            f"{path} is damaged: {len(whole) - len(kept)} of {len(whole)} lines are not valid or are "
            f"doubled; the sweep goes on with {len(trials)} trial{'' if len(trials) == 1 else 's'} of it. "
            f"The file as it was is kept as {beside.name}",
            Notice,
            stacklevel=2,
        )
    if b"".join(kept) != written:
        write_bytes(path, b"".join(kept))
    return events


def _stored(key: str) -> str:
    """The name of a setting in the journal, in the words of version 0.1.0."""
    return next(iter(settings_in_words_of_0_1({key: None})))
