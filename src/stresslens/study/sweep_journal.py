"""Which trials of a sweep were asked and how they ended: Optuna's journal, written by one owner and
whole after any kill."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState, create_trial

from stresslens.config.search_space import Sweep, constraints_of, space_settings
from stresslens.config.sweep_validation import allowed, recipe_with
from stresslens.core.draws import mix
from stresslens.core.files import UnreadableRun

TRIES = 1000
"""Draws of the method that may miss the constraints before it is drawn at random instead, until they hold."""

optuna.logging.set_verbosity(optuna.logging.WARNING)


class Held:
    """A lock that is held already: the owner has the folder's, which falls with its process;
    Optuna's would outlive a kill."""

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        return None


class SweepJournal:
    """The trials by number. What is asked depends on the sweep's seed, the number and the trials
    before, and on nothing else."""

    def __init__(
        self, path: Path, sweep: Sweep, values: Mapping[str, Any], base: Path, *, largest: bool
    ) -> None:
        """`values` are those of the recipe without settings; `largest` is whether a larger value is
        better."""
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
                f"{path} is no journal of a sweep ({error}); delete its folder and sweep.json to start anew"
            ) from error

    @property
    def _trials(self) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False)

    def __len__(self) -> int:
        return len(self._trials)

    def ask(self) -> int:
        """The number of a new trial, written down with its settings at once."""
        number = len(self)
        listed = self._sweep.settings
        params, settings = self._drawn(number) if listed is None else ({}, listed[number])
        distributions = {setting.key: setting.distribution() for setting in self._settings}
        self._study.add_trial(
            create_trial(
                state=TrialState.RUNNING,
                params=params,
                distributions=distributions,
                user_attrs={"settings": settings},
            )
        )
        return number

    def _drawn(self, number: int) -> tuple[dict[str, Any], dict[str, Any]]:
        """What the method draws and the settings it stands for, which satisfy the constraints and
        make a recipe."""
        seed = mix(self._sweep.seed, number) % 2**32
        random = optuna.samplers.RandomSampler(seed=seed)
        tpe = optuna.samplers.TPESampler(seed=seed, multivariate=False, constant_liar=True)
        sampler: optuna.samplers.BaseSampler = tpe if self._sweep.method == "tpe" else random
        fresh = create_trial(state=TrialState.RUNNING)
        fresh.number = number
        tries = 0
        while True:
            by = sampler if tries < TRIES else random
            drawn = {
                s.key: by.sample_independent(self._study, fresh, s.key, s.distribution())
                for s in self._settings
            }
            settings = {s.key: s.value(drawn[s.key]) for s in self._settings}
            if allowed(self._values, settings, self._constraints) and recipe_with(
                self._values, settings, {}, self._base, []
            ):
                return drawn, settings
            tries += 1

    def settings(self, number: int) -> dict[str, Any]:
        settings: dict[str, Any] = self._trials[number].user_attrs["settings"]
        return settings

    @property
    def running(self) -> list[int]:
        """Those asked and not told, the first first."""
        return [trial.number for trial in self._trials if trial.state == TrialState.RUNNING]

    def tell(self, number: int, value: float | None) -> None:
        """How a trial ended: its value, or None for one that diverged or was left out."""
        state = TrialState.PRUNED if value is None else TrialState.COMPLETE
        self._study.tell(number, value, state)

    def at_rung(self, epochs: int) -> dict[int, float]:
        """The values of the trials that came so far."""
        return {
            t.number: t.intermediate_values[epochs] for t in self._trials if epochs in t.intermediate_values
        }

    def report(self, number: int, epochs: int, value: float) -> None:
        self._study._storage.set_trial_intermediate_value(self._trials[number]._trial_id, epochs, value)

    def status(self, number: int) -> Literal["running", "finished", "left out"]:
        """`left out` by halving, or because it diverged."""
        names: dict[TrialState, Literal["running", "finished"]] = {
            TrialState.RUNNING: "running",
            TrialState.COMPLETE: "finished",
        }
        return names.get(self._trials[number].state, "left out")

    def value(self, number: int) -> float | None:
        return self._trials[number].value

    @property
    def ended(self) -> int:
        """How many trials have been told."""
        return len(self) - len(self.running)

    @property
    def best(self) -> int | None:
        """The trial of the best value, the first of equals."""
        ended = [t for t in self._trials if t.state == TrialState.COMPLETE]
        sign = 1 if self._study.direction == optuna.study.StudyDirection.MAXIMIZE else -1
        return max(ended, key=lambda t: sign * (t.value or 0.0)).number if ended else None


def _cut(path: Path) -> None:
    """Takes away a line that a kill left half written, since the next would be added to it."""
    if path.exists():
        os.truncate(path, path.read_bytes().rfind(b"\n") + 1)
