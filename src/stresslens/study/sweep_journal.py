"""The journal of a sweep: Optuna's journal storage of its trials, their settings and results.

Only one process writes it, and it stays readable after any kill.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import BaseJournalBackend, JournalFileBackend
from optuna.trial import FrozenTrial, TrialState, create_trial

from stresslens.comparison.sweep_file import TrialStatus
from stresslens.config.old_words import settings_in_todays_words, settings_in_words_of_0_1
from stresslens.config.search_space import Sweep, constraints_of, space_settings
from stresslens.config.sweep_validation import allowed, recipe_with
from stresslens.core.draws import mix
from stresslens.core.errors import Notice
from stresslens.core.files import write_bytes
from stresslens.evaluation.record import Failure

TRIES = 1000
"""Draws of the method that may violate the constraints. After these, settings are drawn at
random until the constraints hold."""

optuna.logging.set_verbosity(optuna.logging.WARNING)


class Held:
    """A lock for Optuna that does nothing. The process already holds the folder's lock, which ends
    with the process; Optuna's own lock would stay after a kill."""

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        return None


STUDY = "sweep"
"""The name of Optuna's study in the journal."""


class SweepJournal:
    """The trials of a sweep by number. The settings of a trial depend only on the sweep's seed, the
    number and the earlier trials. Of a journal with more trials than the sweep has, the first count."""

    def __init__(
        self, path: Path, sweep: Sweep, values: Mapping[str, Any], base: Path, *, largest: bool
    ) -> None:
        """Opens or creates the journal at `path`. `values` are the plain values of the
        configuration without the settings; `largest` says whether a larger value is better. What is
        damaged at the end of the file is left out, with a Notice."""
        self._sweep, self._values, self._base = sweep, values, base
        self._settings, self._constraints = space_settings(sweep, []), constraints_of(sweep, [])
        _mend(path)
        lock: Any = Held()
        storage = JournalStorage(JournalFileBackend(str(path), lock_obj=lock))
        self._study = optuna.create_study(
            storage=storage,
            study_name=STUDY,
            direction="maximize" if largest else "minimize",
            load_if_exists=True,
        )

    @property
    def _trials(self) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False)[: self._sweep.size]

    def __contains__(self, number: int) -> bool:
        """Whether this sweep asks for the settings of a trial. Those that TPE drew are only compared
        with the space, because they depend on how many trials were under way."""
        stored = {_stored(setting.key): setting.distribution() for setting in self._settings}
        if self._trials[number].distributions != stored:
            return False
        if self._sweep.settings is not None:
            return self.settings(number) == self._sweep.settings[number]
        return self._sweep.method == "tpe" or self._drawn(number)[1] == self.settings(number)

    def __len__(self) -> int:
        return len(self._trials)

    def ask(self) -> int:
        """Adds a new trial with its settings to the journal, and returns its number."""
        number = len(self)
        listed = self._sweep.settings
        params, settings = self._drawn(number) if listed is None else ({}, listed[number])
        distributions = {_stored(setting.key): setting.distribution() for setting in self._settings}
        params = {_stored(key): value for key, value in params.items()}
        self._study.add_trial(
            create_trial(
                state=TrialState.RUNNING,
                params=params,
                distributions=distributions,
                user_attrs={"settings": settings_in_words_of_0_1(settings)},
            )
        )
        return number

    def _drawn(self, number: int) -> tuple[dict[str, Any], dict[str, Any]]:
        """The numbers that the method draws, and their settings, which satisfy the constraints and
        give a valid configuration."""
        seed = mix(self._sweep.seed, number) % 2**32
        random = optuna.samplers.RandomSampler(seed=seed)
        tpe = optuna.samplers.TPESampler(seed=seed, multivariate=False, constant_liar=True)
        sampler: optuna.samplers.BaseSampler = tpe if self._sweep.method == "tpe" else random
        trial = create_trial(state=TrialState.RUNNING)
        trial.number = number
        tries = 0
        while True:
            current = sampler if tries < TRIES else random
            drawn = {
                s.key: current.sample_independent(self._study, trial, _stored(s.key), s.distribution())
                for s in self._settings
            }
            settings = {s.key: s.value(drawn[s.key]) for s in self._settings}
            if allowed(self._values, settings, self._constraints) and recipe_with(
                self._values, settings, {}, self._base, []
            ):
                return drawn, settings
            tries += 1

    def settings(self, number: int) -> dict[str, Any]:
        return settings_in_todays_words(self._trials[number].user_attrs["settings"])

    @property
    def running(self) -> list[int]:
        """The numbers of the trials without a result, ascending."""
        return [trial.number for trial in self._trials if trial.state == TrialState.RUNNING]

    def note(self, number: int, failure: Failure) -> None:
        """Records why a trial failed, before its end."""
        trial_id = self._trials[number]._trial_id
        self._study._storage.set_trial_user_attr(trial_id, "failure", failure.as_json())

    def failure(self, number: int) -> Failure | None:
        """Why a trial failed; None where it did not."""
        noted = self._trials[number].user_attrs.get("failure")
        return None if noted is None else Failure.model_validate(noted)

    def tell(self, number: int, value: float | None) -> None:
        """Records the end of a trial: its value, or None where it failed or was left out."""
        state = TrialState.PRUNED if value is None else TrialState.COMPLETE
        self._study.tell(number, value, state)

    def at_rung(self, epochs: int) -> dict[int, float]:
        """The values of the trials that reached the rung after `epochs` epochs."""
        return {
            t.number: t.intermediate_values[epochs] for t in self._trials if epochs in t.intermediate_values
        }

    def report(self, number: int, epochs: int, value: float) -> None:
        """Records a trial's value at the rung after `epochs` epochs."""
        self._study._storage.set_trial_intermediate_value(self._trials[number]._trial_id, epochs, value)

    def status(self, number: int) -> TrialStatus:
        """The status of a trial; `left out` means by halving, or that it diverged in version 0.1.0."""
        state, failure = self._trials[number].state, self.failure(number)
        if state == TrialState.RUNNING:
            return "running"
        if failure is not None:
            return "diverged" if failure.is_divergence else "failed"
        return "finished" if state == TrialState.COMPLETE else "left out"

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
        ended = [t for t in self._trials if t.state == TrialState.COMPLETE]
        sign = 1 if self._study.direction == optuna.study.StudyDirection.MAXIMIZE else -1
        return max(ended, key=lambda t: sign * (t.value or 0.0)).number if ended else None


class _Lines(BaseJournalBackend):
    """Lines of a journal in memory."""

    def __init__(self, lines: Sequence[bytes]) -> None:
        self.entries = [json.loads(line) for line in lines]

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        yield from self.entries[log_number_from:]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        self.entries += logs


def _trials_in(lines: Sequence[bytes]) -> int | None:
    """The number of trials in these lines; None where they are not the journal of a sweep."""
    try:
        storage = JournalStorage(_Lines(lines))
        known = [study for study in storage.get_all_studies() if study.study_name == STUDY]
        trials = storage.get_all_trials(known[0]._study_id) if known else []
        return len(trials) if all("settings" in trial.user_attrs for trial in trials) else None
    except Exception:  # Optuna checks nothing, so that a damaged line raises anything
        return None


def _mend(path: Path) -> None:
    """Leaves the lines of a journal up to the first that is not valid, each once. The damaged file is
    kept beside it, with a Notice. A half-written last line, as a kill leaves it, only goes: the next
    line would be appended to it."""
    if not path.exists():
        return
    written = path.read_bytes()
    whole = written[: written.rfind(b"\n") + 1].splitlines(keepends=True)
    lines = list(dict.fromkeys(whole))
    valid, damaged = 0, len(lines)  # so many lines are valid; so many are not
    if _trials_in(lines) is not None:
        valid = len(lines)
    while damaged - valid > 1:
        middle = (valid + damaged) // 2
        if _trials_in(lines[:middle]) is None:
            damaged = middle
        else:
            valid = middle
    kept = lines[:valid]
    if kept != whole:
        beside = path.with_name(f"{path.name}.damaged")
        write_bytes(beside, written)
        trials = _trials_in(kept)
        warnings.warn(
            f"{path} is damaged: {len(whole) - valid} of {len(whole)} lines are not valid or are doubled; "
            f"the sweep goes on with {trials} trial{'' if trials == 1 else 's'} of it. "
            f"The file as it was is kept as {beside.name}",
            Notice,
            stacklevel=2,
        )
    if b"".join(kept) != written:
        write_bytes(path, b"".join(kept))


def _stored(key: str) -> str:
    """The name of a setting in the journal, in the words of version 0.1.0."""
    return next(iter(settings_in_words_of_0_1({key: None})))
