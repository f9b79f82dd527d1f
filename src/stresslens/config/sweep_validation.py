"""Validation of a sweep before any training: reports every reason why it cannot be carried out."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.random import RandomState

from stresslens.config.dotted_keys import set_dotted
from stresslens.config.grid import Cell, Change
from stresslens.config.registry import Keys
from stresslens.config.schema import COMPUTE_KEYS, MONITORING_KEYS, RESUME_SAFE_KEYS, VariantConfig
from stresslens.config.search_space import Constraint, Halving, Setting, Sweep, constraints_of, space_settings
from stresslens.config.setting_keys import keys_meant, setting_keys
from stresslens.config.study_keys import StudyKeys
from stresslens.config.validation import VARIANT_CONFIG, check_variant, depends_on
from stresslens.core.errors import ConfigError, Problem
from stresslens.core.extras import install_command, missing_modules
from stresslens.core.spelling import closest

DRAWS = 2000
"""Random draws of settings that test whether any satisfies the constraints."""
SECTIONS = ("model", "input", "train")
"""Sections that may differ between trials. `data` may not: trials are compared on the same
images."""
SHARED = (*COMPUTE_KEYS, *MONITORING_KEYS, *RESUME_SAFE_KEYS, "select")
"""Settings of `train` that are the same in all trials, because they say how trials are carried
out and compared."""

INSTEAD = {
    "weights": "train {run} first, and give its folder or file: weights: {{run: ./runs/STUDY/{run}}}",
    "teacher": "train the teacher first, and give its folder: {{distillation: {{run: ./runs/STUDY/{run}}}}}",
    "member": "an ensemble is made of trained runs; leave it out of the sweep, or name it in another study",
}
"""What to do where a run of a sweep needs another run of its study."""


def with_settings(
    values: Mapping[str, Any], settings: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Keys]]:
    """The plain values of a configuration with some settings changed, and the path of each of
    these. Raises ConfigError for a setting that cannot be set."""
    changed = copy.deepcopy(dict(values))
    return changed, {key: set_dotted(changed, key, value) for key, value in settings.items()}


def recipe_with(
    values: Mapping[str, Any],
    settings: Mapping[str, Any],
    at: Mapping[str, Keys],
    base: Path,
    problems: list[Problem],
) -> VariantConfig | None:
    """The configuration with these settings, or None with the reasons added to `problems`. `at`
    is the path of each setting in the study file."""
    try:
        changed, paths = with_settings(values, settings)
    except ConfigError as error:
        problems.append(Problem(next(iter(at.values()), ("sweep",)), str(error)))
        return None
    config = check_variant(
        changed, (), base, problems, {path: at.get(key, ("sweep",)) for key, path in paths.items()}
    )
    if config is None or not (awaited := _awaited_runs(config)):
        return config
    problems += [Problem(next(iter(at.values()), ("sweep",)), why) for why in awaited]
    return None


def allowed(
    values: Mapping[str, Any], settings: Mapping[str, Any], constraints: Sequence[Constraint]
) -> bool:
    """Whether the configuration with these settings satisfies every constraint. Raises ConfigError
    where the two sides of one cannot be compared."""
    changed = with_settings(values, settings)[0] if constraints else {}
    return all(constraint.holds(changed) for constraint in constraints)


def check_sweep(
    sweep: Sweep, config: VariantConfig, fixed: Mapping[str, Keys], base: Path, problems: list[Problem]
) -> None:
    """Adds to `problems` every reason why this sweep of a variant cannot be carried out.

    `fixed` holds the keys that `runs`, the grid or the command line set, and where they do. Both
    ends of every range, every choice and every listed setting must give a valid configuration. At
    least one of `DRAWS` random settings must satisfy `where`.
    """
    before = len(problems)
    problems += [Problem(("sweep", *path), message) for path, message in _key_problems(sweep, config)]
    settings, constraints = space_settings(sweep, problems), constraints_of(sweep, problems)
    listed = [
        {key: ("sweep", "settings", index, key) for key in trial}
        for index, trial in enumerate(sweep.settings or [])
    ]
    varied: dict[str, Keys] = {setting.key: setting.at for setting in settings}
    for paths in listed:
        varied |= paths
    problems += [
        Problem(at, why)
        for key, at in varied.items()
        if (why := _not_variable(key, sweep, fixed)) is not None
    ]
    problems += [
        Problem(varied[other], f"the sweep also varies {one}; write this option inside the choices of {one}")
        for one, other in itertools.permutations(varied, 2)
        if other.startswith(f"{one}.")
    ]
    if len(problems) > before:
        return
    values = VARIANT_CONFIG.dump_python(config, mode="json")
    for setting in settings:
        problems += _wrong_values(values, setting, base)
    for trial, at in zip(sweep.settings or [], listed):
        recipe_with(values, trial, at, base, problems)
    if settings and len(problems) == before:
        _check_draws(values, settings, constraints, base, problems)


def check_swept(
    keys: StudyKeys,
    cell: Cell,
    override_changes: Sequence[Change],
    config: VariantConfig,
    base: Path,
    problems: list[Problem],
) -> None:
    """Adds to `problems` why the sweep cannot be carried out for this variant."""
    sweep = keys.sweep
    assert sweep is not None
    fixed: dict[str, Keys] = {key: origin for key, _, origin in cell.changes}
    fixed |= {key: ("the", "command", "line") for key, _, _ in override_changes}
    if keys.data_sizes is not None and cell.point is not None:
        fixed |= dict.fromkeys(keys.data_sizes.sets, ("the", "data_sizes"))
    awaited = _awaited_runs(config)
    problems += [Problem(("sweep",), why) for why in awaited]
    if config.estimator is not None or any(key.startswith("estimator") for key in sweep.space or {}):
        why = "trials are compared by their epochs, and an estimator has none; list its settings as runs"
        problems.append(Problem(("sweep",), why))
    if not awaited:
        check_sweep(sweep, config, fixed, base, problems)


def _awaited_runs(config: VariantConfig) -> list[str]:
    """Why a sweep cannot wait for the runs that a trial needs. A run that is named by its folder is there
    already."""
    return [
        f"a sweep starts before other runs are trained; {INSTEAD[what].format(run=run)}"
        for what, run in depends_on(config)
        if what in INSTEAD and (what == "member" or "/" not in run)
    ]


def _key_problems(sweep: Sweep, config: VariantConfig) -> Iterator[tuple[Keys, str]]:
    """What is wrong with the keys of the sweep itself, apart from its settings."""
    train, rung = config.train, sweep.halving.epochs
    if (sweep.space is None) == (sweep.settings is None):
        yield (), "give either a space to draw settings from, or a list of settings"
    for name in ("space", "settings"):
        if getattr(sweep, name) in ({}, []):
            yield (name,), "is empty; name at least one setting to try"
    if sweep.settings is not None:
        for name, given in (
            ("trials", sweep.trials),
            ("where", sweep.where),
            ("method", sweep.method == "tpe"),
        ):
            if given:
                yield (name,), "applies to a space only; each of the listed settings is one trial"
    if sweep.method == "tpe" and missing_modules("sweep"):
        yield ("method",), f"tpe needs Optuna; {install_command('sweep')}"
    if sweep.method == "halving" and rung >= train.epochs:
        yield ("halving",), f"its epochs must be fewer than train.epochs ({train.epochs}), got {rung}"
    if sweep.method == "halving" and rung < train.evaluate_every:
        yield (
            ("halving",),
            f"its epochs must be at least train.evaluate_every ({train.evaluate_every}), got {rung}",
        )
    if sweep.method != "halving" and sweep.halving != Halving():
        yield (
            ("halving",),
            f"has no effect with the method {sweep.method}; leave it out, or set method: halving",
        )
    if "validation" not in train.watch:
        yield (), "trials are compared on the validation split; add validation to train.watch"


def _wrong_values(values: Mapping[str, Any], setting: Setting, base: Path) -> list[Problem]:
    """What is wrong with each value; only one problem where it is the same for all values."""
    wrong: list[list[Problem]] = []
    for value, at in setting.ends:
        wrong.append([])
        recipe_with(values, {setting.key: value}, {setting.key: at}, base, wrong[-1])
    messages = {problem.message for value_problems in wrong for problem in value_problems}
    if all(wrong) and len(messages) == 1:
        return [Problem(setting.at, messages.pop())]
    return [problem for value_problems in wrong for problem in value_problems]


def _not_variable(key: str, sweep: Sweep, fixed: Mapping[str, Keys]) -> str | None:
    """Why the sweep may not vary this key; None where it may."""
    section, _, name = key.partition(".")
    if section not in SECTIONS:
        meant = "" if section in setting_keys() else keys_meant(key, {})
        hint = f"did you mean {meant}?" if meant and not name else closest(section, list(SECTIONS))
        return f"a sweep varies settings of these sections only; {hint}"
    if section == "train" and name in SHARED:
        return f"{key} is the same in all trials; set it in the configuration"
    if key == "train.epochs" and sweep.method == "halving":
        return "halving decides how many epochs a trial is trained; train.epochs is the maximum"
    if key in fixed:
        return f"the sweep varies it, and {' '.join(map(str, fixed[key]))} sets it; remove one of the two"
    return None


def _check_draws(
    values: Mapping[str, Any],
    settings: Sequence[Setting],
    constraints: Sequence[Constraint],
    base: Path,
    problems: list[Problem],
) -> None:
    numbers = RandomState(0)
    drawn = [{setting.key: setting.draw(numbers) for setting in settings} for _ in range(DRAWS)]
    try:
        valid = [trial for trial in drawn if allowed(values, trial, constraints)]
    except ConfigError as error:
        problems.append(Problem(("sweep", "where"), str(error)))
        return
    if not valid:
        problems.append(
            Problem(
                ("sweep", "where"),
                f"none of {DRAWS:,} random settings of the space satisfies it; relax one of the two",
            )
        )
    elif all(recipe_with(values, trial, {}, base, []) is None for trial in valid[:50]):
        recipe_with(values, valid[0], {}, base, problems)
