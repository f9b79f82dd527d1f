"""The journal of a sweep: Optuna's journal storage of its trials, their settings and results.

Only one process writes it, and it stays readable after any kill.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState, create_trial

from stresslens.config.old_words import settings_in_todays_words, settings_in_words_of_0_1
from stresslens.config.search_space import Sweep, constraints_of, space_settings
from stresslens.config.sweep_validation import allowed, recipe_with
from stresslens.core.draws import mix
from stresslens.core.files import UnreadableRun

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


class SweepJournal:
    """The trials of a sweep by number. The settings of a trial depend only on the sweep's seed, the
    number and the earlier trials."""

    def __init__(
        self, path: Path, sweep: Sweep, values: Mapping[str, Any], base: Path, *, largest: bool
    ) -> None:
        """Opens or creates the journal at `path`. `values` are the plain values of the
        configuration without the settings; `largest` says whether a larger value is better.
        Raises UnreadableRun where the file is not a journal."""
        self._sweep, self._values, self._base = sweep, values, base
        self._settings, self._constraints = space_settings(sweep, []), constraints_of(sweep, [])
        _cut(path)
        try:
            lock: Any = Held()
            storage = JournalStorage(JournalFileBackend(str(path), lock_obj=lock))
            self._study = optuna.create_study(
                storage=storage,
                study_name="sweep",
                direction="maximize" if largest else "minimize",
                load_if_exists=True,
            )
        except (ValueError, KeyError) as error:
            raise UnreadableRun(
                f"{path} is not the journal of a sweep ({error}); "
                "delete its folder and sweep.json to start again"
            ) from error

    @property
    def _trials(self) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False)

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

    def tell(self, number: int, value: float | None) -> None:
        """Records the end of a trial: its value, or None where it diverged or was left out."""
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

    def status(self, number: int) -> Literal["running", "finished", "left out"]:
        """The status of a trial; `left out` means by halving, or because it diverged."""
        names: dict[TrialState, Literal["running", "finished"]] = {
            TrialState.RUNNING: "running",
            TrialState.COMPLETE: "finished",
        }
        return names.get(self._trials[number].state, "left out")

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


def _cut(path: Path) -> None:
    """Removes a half-written last line that a kill left, because the next line would be appended
    to it."""
    if path.exists():
        os.truncate(path, path.read_bytes().rfind(b"\n") + 1)


def _stored(key: str) -> str:
    """The name of a setting in the journal, in the words of version 0.1.0."""
    return next(iter(settings_in_words_of_0_1({key: None})))
