"""Whether a sweep can be carried out: every reason why not is found before any training."""

from __future__ import annotations

import copy
import itertools
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from stresslens.config.dotted_keys import set_dotted
from stresslens.config.registry import Keys
from stresslens.config.schema import COMPUTE_KEYS, MONITORING_KEYS, RESUME_SAFE_KEYS, VariantConfig
from stresslens.config.search_space import Constraint, Halving, Setting, Sweep, constraints_of, space_settings
from stresslens.config.validation import VARIANT_CONFIG, check_variant
from stresslens.core.errors import ConfigError, Problem, closest

DRAWS = 2000
"""Settings drawn at random to see whether any satisfies the constraints."""
SECTIONS = ("model", "input", "train")
"""What trials may differ in; other data would be judged by other images."""
SHARED = (*COMPUTE_KEYS, *MONITORING_KEYS, *RESUME_SAFE_KEYS, "select")
"""Settings of `train` that all trials have in common, since they say how trials are carried out and
judged."""


def with_settings(
    values: Mapping[str, Any], settings: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Keys]]:
    """A recipe's plain values with some settings changed, and the path of each. Raises ConfigError
    for what cannot be set."""
    changed = copy.deepcopy(dict(values))
    return changed, {key: set_dotted(changed, key, value) for key, value in settings.items()}


def recipe_with(
    values: Mapping[str, Any],
    settings: Mapping[str, Any],
    at: Mapping[str, Keys],
    base: Path,
    found: list[Problem],
) -> VariantConfig | None:
    """The recipe with these settings, or None and why in `found`; `at` is where each setting was written."""
    try:
        changed, paths = with_settings(values, settings)
    except ConfigError as error:
        found.append(Problem(next(iter(at.values()), ("sweep",)), str(error)))
        return None
    return check_variant(
        changed, (), base, found, {path: at.get(key, ("sweep",)) for key, path in paths.items()}
    )


def allowed(
    values: Mapping[str, Any], settings: Mapping[str, Any], constraints: Sequence[Constraint]
) -> bool:
    """Whether a recipe with these settings satisfies every constraint. Raises ConfigError where one
    cannot be compared."""
    changed = with_settings(values, settings)[0] if constraints else {}
    return all(constraint.holds(changed) for constraint in constraints)


def check_sweep(
    sweep: Sweep, config: VariantConfig, fixed: Mapping[str, Keys], base: Path, found: list[Problem]
) -> None:
    """Adds to `found` every reason why this sweep of a recipe cannot be carried out.

    `fixed` are the keys that runs, a grid or the command line set, and where. Both ends of every
    range, every choice and every listed setting must make a valid recipe, and of `DRAWS` random
    settings at least one must satisfy `where`.
    """
    before = len(found)
    found += [Problem(("sweep", *path), message) for path, message in _shape(sweep, config)]
    settings, constraints = space_settings(sweep, found), constraints_of(sweep, found)
    listed = [
        {key: ("sweep", "settings", place, key) for key in each}
        for place, each in enumerate(sweep.settings or [])
    ]
    tried: dict[str, Keys] = {setting.key: setting.at for setting in settings}
    for each in listed:
        tried |= each
    found += [
        Problem(at, why) for key, at in tried.items() if (why := _not_tried(key, sweep, fixed)) is not None
    ]
    found += [
        Problem(tried[other], f"{one} is tried as well; write its options inside the choices of {one}")
        for one, other in itertools.permutations(tried, 2)
        if other.startswith(f"{one}.")
    ]
    if len(found) > before:
        return
    values = VARIANT_CONFIG.dump_python(config, mode="json")
    for setting in settings:
        found += _wrong_values(values, setting, base)
    for each, at in zip(sweep.settings or [], listed):
        recipe_with(values, each, at, base, found)
    if settings and len(found) == before:
        _check_draws(values, settings, constraints, base, found)


def _shape(sweep: Sweep, config: VariantConfig) -> Iterator[tuple[Keys, str]]:
    """What is wrong with the sweep's own keys."""
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
                yield (name,), "belongs to a space; listed settings are all tried, once each"
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
            f"means nothing with the method {sweep.method}; leave it out, or set method: halving",
        )
    if "validation" not in train.watch:
        yield (), "trials are judged by validation; put it among the splits watched (train.watch)"


def _wrong_values(values: Mapping[str, Any], setting: Setting, base: Path) -> list[Problem]:
    """What is wrong with each value; once for the setting where it is the same with all."""
    wrong: list[list[Problem]] = []
    for value, at in setting.ends:
        wrong.append([])
        recipe_with(values, {setting.key: value}, {setting.key: at}, base, wrong[-1])
    messages = {problem.message for each in wrong for problem in each}
    if all(wrong) and len(messages) == 1:
        return [Problem(setting.at, messages.pop())]
    return [problem for each in wrong for problem in each]


def _not_tried(key: str, sweep: Sweep, fixed: Mapping[str, Keys]) -> str | None:
    section, _, name = key.partition(".")
    if section not in SECTIONS:
        return f"a sweep tries settings of the recipe's sections; {closest(section, list(SECTIONS))}"
    if section == "train" and name in SHARED:
        return f"all trials have {key} in common; set it in the recipe"
    if key == "train.epochs" and sweep.method == "halving":
        return "halving decides how many epochs a trial goes; train.epochs is the most"
    if key in fixed:
        return f"is tried by the sweep, and set by {' '.join(map(str, fixed[key]))}; take one of the two out"
    return None


def _check_draws(
    values: Mapping[str, Any],
    settings: Sequence[Setting],
    constraints: Sequence[Constraint],
    base: Path,
    found: list[Problem],
) -> None:
    numbers = random.Random(0)
    drawn = [{setting.key: setting.draw(numbers) for setting in settings} for _ in range(DRAWS)]
    try:
        left = [each for each in drawn if allowed(values, each, constraints)]
    except ConfigError as error:
        found.append(Problem(("sweep", "where"), str(error)))
        return
    if not left:
        found.append(
            Problem(
                ("sweep", "where"),
                f"none of {DRAWS:,} settings drawn from the space satisfies it; loosen one or the other",
            )
        )
    elif all(recipe_with(values, each, {}, base, []) is None for each in left[:50]):
        recipe_with(values, left[0], {}, base, found)
