"""Ingredients of a recipe: settings that can be left out of it, named in `ablate:` or found in the file."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Container, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stresslens.config import registry
from stresslens.config.dotted_keys import DEFAULTS, LISTS, SLOTS, get_dotted, single_settings
from stresslens.config.schema import Input, Train
from stresslens.config.wrong_values import shortened
from stresslens.core.errors import ConfigError, Problem
from stresslens.core.spelling import closest, unknown_key

ADDED = {".".join(map(str, path)) for path in LISTS}
"""Keys that hold a list, to which each ingredient adds its own elements."""
FORMS = ("with", "without")
SWITCHES = ("ema", "clip", "balance", "accumulate", "replay", "fine_tune")
"""Settings of `train` whose default is that nothing is done."""
NUMBER = "a number that has no off; `sweep:` searches the best"
KEPT = {
    "train.epochs": "how long is trained",
    "train.batch_size": NUMBER,
    "train.lr": NUMBER,
    "train.subset": "which images are trained on",
    "train.calibration": "which images calibrate",
    "train.shuffle": "the order of the images",
    "train.stop": "how long is trained",
    "train.select": "which epoch is kept",
    "input.size": "how large the net sees the images",
    "input.crop": "which part of the images the net sees",
}
"""Settings that are no ingredients, and why."""
COMPANIONS = {"train.optimizer": ("train.lr",), "train.objective": ("train.replay",)}
"""Settings that come and go with another plug-in than the default one."""
NAMES = {"train.loss.smoothing": "label smoothing"}
LIBRARIES = ("timm", "torch")
"""Plug-ins for all optimizers of a library; the ingredient is called like the one that is named."""


@dataclass(frozen=True)
class Ingredient:
    """Settings that a recipe has with the ingredient, and those that are stated for it without. A setting
    that is not stated is then what the rest of the file says, or its default. `places` are where the
    study file has each."""

    name: str
    with_it: dict[str, Any]
    without_it: dict[str, Any] = field(default_factory=dict)
    places: dict[str, registry.Keys] = field(default_factory=dict)


@dataclass(frozen=True)
class Ingredients:
    """The ingredients of a recipe; the recipe without any of them (`bare`); and the settings that are no
    ingredients, with why."""

    bare: dict[str, Any]
    all: list[Ingredient]
    kept: dict[str, str] = field(default_factory=dict)

    def named(self, names: Sequence[str], problems: list[Problem]) -> list[str]:
        """The ingredients of these names, or all; a name that is none is added to `problems`."""
        known = [each.name for each in self.all]
        for name in names:
            if name not in known:
                why = f"--ingredient {name}: no ingredient has this name; {closest(name, known)}"
                problems.append(Problem(("ablate",), why))
        return [name for name in known if name in names or not names]


def stated_ingredients(
    section: Mapping[str, Any], recipe: Mapping[str, Any], problems: list[Problem]
) -> Ingredients:
    """The ingredients that the key `ablate` names. Mistakes are added to `problems`."""
    found: list[Ingredient] = []
    if not section:
        why = "name an ingredient, as in {ema: {train.ema: 0.999}}; or `ablate: auto` finds them"
        problems.append(Problem(("ablate",), why))
    for name, settings in section.items():
        if not isinstance(settings, Mapping) or not settings:
            why = (
                f"expected its settings by dotted key, as in {{train.ema: 0.999}}, got {shortened(settings)}"
            )
            problems.append(Problem(("ablate", name), why))
            continue
        if not name.strip():
            problems.append(Problem(("ablate", name), "an ingredient needs a name, as in {ema: …}"))
        ingredient = Ingredient(name, {}, {}, {})
        for below, value in single_settings(settings):
            key, at = ".".join(below), ("ablate", name, *below)
            ingredient.places[key] = at
            has_forms = isinstance(value, Mapping) and not {*FORMS}.isdisjoint(value)
            stated = value if has_forms else {"with": value}
            if "with" not in stated:
                problems.append(Problem(at, "says what is without it; give `with` too"))
            unknown = [form for form in stated if form not in FORMS]
            problems += [Problem(at, unknown_key(form, FORMS)) for form in unknown]
            for form, into in zip(FORMS, (ingredient.with_it, ingredient.without_it)):
                if form in stated:
                    into[key] = stated[form]
                    _check_list(key, stated[form], at, problems)
        found.append(ingredient)
    return Ingredients(dict(recipe), found)


def _check_list(key: str, value: Any, at: registry.Keys, problems: list[Problem]) -> None:
    if key in ADDED and not isinstance(value, list):
        problems.append(Problem(at, f"expected a list, which is added to {key}, as in [flip]"))


def found_ingredients(recipe: Mapping[str, Any], base: Path, asked: Sequence[str] = ()) -> Ingredients:
    """The ingredients that a recipe has: each augmentation, and every setting that differs from its default
    and can be taken away. Of the model these are options that are off by default. Settings that are none are
    one all the same where they are `asked` for by their keys."""
    bare = copy.deepcopy(dict(recipe))
    kept = {key: why for key, why in KEPT.items() if _at(recipe, key) is not None}
    found = _Found(bare, base, kept)
    found.of_train()
    found.of_options("model", off_only=True)
    found.of_input()
    for key in [key for key in found.kept if key in asked]:
        found.add(key, [key])
        del found.kept[key]
    return Ingredients(bare, found.all, found.kept)


class _Found:
    """The ingredients that were found; each is taken out of `bare`."""

    def __init__(self, bare: dict[str, Any], base: Path, kept: dict[str, str]) -> None:
        self.bare, self.base, self.kept = bare, base, kept
        self.all: list[Ingredient] = []

    def add(self, name: str, keys: Sequence[str], without: Mapping[str, Any] | None = None) -> None:
        """An ingredient of the settings at these keys, which are in `bare`."""
        values = {key: _taken(self.bare, key) for key in keys}
        places: dict[str, registry.Keys] = {key: tuple(key.split(".")) for key in keys}
        self.all.append(Ingredient(self._unused(name), values, dict(without or {}), places))

    def of_train(self) -> None:
        train = self.bare.get("train")
        for key in sorted(train, key=lambda key: key == "replay") if isinstance(train, Mapping) else []:
            dotted, value = f"train.{key}", _at(self.bare, f"train.{key}")
            if key == "augment" and isinstance(value, list):
                self._augmentations(value)
            elif ("train", key) in SLOTS and value is not None:
                self._plugin(dotted, value)
            elif key in SWITCHES and value is not None and value != getattr(Train(), key):
                self.add(key.replace("_", " "), [dotted])

    def of_input(self) -> None:
        for key in ("normalize", "interpolation"):
            if _at(self.bare, f"input.{key}") not in (None, getattr(Input(), key)):
                self.add(key, [f"input.{key}"])

    def _augmentations(self, listed: list[Any]) -> None:
        del self.bare["train"]["augment"]
        for k, value in enumerate(listed):
            with suppress(ConfigError):  # reported where the list is checked
                name, _ = registry.name_and_options("augmentations", value)
                at: dict[str, registry.Keys] = {"train.augment": ("train", "augment", k)}
                self.all.append(Ingredient(self._unused(_short(name)), {"train.augment": [value]}, {}, at))

    def _plugin(self, dotted: str, value: Any) -> None:
        """Another plug-in than the default one is an ingredient with all its options and its
        `COMPANIONS`; weight decay is one of its own."""
        path: registry.Keys = tuple(dotted.split("."))
        try:
            name, options = registry.name_and_options(SLOTS[path], value)
        except ConfigError:  # reported where the plug-in is checked
            return
        if options.get("weight_decay"):
            decay = f"{dotted}.weight_decay"
            self.add("weight decay", [decay], {decay: 0.0})
        if name == DEFAULTS[path]:
            self.of_options(dotted)
            return
        more = [key for key in COMPANIONS.get(dotted, ()) if _at(self.bare, key) is not None]
        is_named = name in LIBRARIES and isinstance(options.get("name"), str)
        self.add(options["name"] if is_named else _short(name), [dotted, *more])
        self.kept = {key: why for key, why in self.kept.items() if key not in more}

    def of_options(self, dotted: str, *, off_only: bool = False) -> None:
        """The options of a plug-in that differ from their defaults; `off_only`: of those that are off by
        default."""
        path: registry.Keys = tuple(dotted.split("."))
        with suppress(ConfigError):  # reported where the plug-in is checked
            name, given = registry.name_and_options(SLOTS[path], _at(self.bare, dotted) or DEFAULTS[path])
            function = registry.plugin(SLOTS[path], name, base=self.base)
            declared = registry.declared_by(SLOTS[path], function)
            for option in [each for each in given if each in declared]:
                key, default = f"{dotted}.{option}", declared[option].default
                if default is declared[option].empty or _same(given[option], default):
                    continue
                if off_only and default not in (None, False, 0):
                    self.kept[key] = f"no value of it is off ({default} by default)"
                else:
                    self.add(NAMES.get(key, option.replace("_", " ")), [key])

    def _unused(self, name: str) -> str:
        return unused(name, {each.name for each in self.all})


def unused(name: str, taken: Container[str]) -> str:
    """The name, or the first of `name 2`, `name 3`, … that is not taken."""
    numbered = itertools.chain([name], (f"{name} {number}" for number in itertools.count(2)))
    return next(each for each in numbered if each not in taken)


def _short(plugin: str) -> str:
    """`mine` of `plugins/mine.py:mine`."""
    return plugin.rpartition(":")[2]


def _same(value: Any, default: Any) -> bool:
    return bool(value == (list(default) if isinstance(default, tuple) else default))


def _at(values: Mapping[str, Any], dotted: str) -> Any:
    """The value at a dotted key; None where there is none."""
    with suppress(KeyError):
        return get_dotted(values, dotted)
    return None


def _taken(values: dict[str, Any], dotted: str) -> Any:
    """The value at a dotted key, which is taken out."""
    section, _, key = dotted.rpartition(".")
    at = get_dotted(values, section)
    if tuple(section.split(".")) in SLOTS:
        (at,) = at.values()
    return at.pop(key)
