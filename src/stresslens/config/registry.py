"""The plug-in registry: finds a plug-in's function by name, checks its options and binds them.

A plug-in is a function in a file of the same name, in the folder of its kind. Only this module and
`own_plugins` import dynamically.
"""

from __future__ import annotations

import importlib
import inspect
import json
import sys
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Union, get_args, get_origin

from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError

from stresslens.config.installed_plugins import installed_plugin, installed_plugins, warn_of_hidden
from stresslens.config.own_plugins import evaluated_signature, load_own_plugin, model_file_at
from stresslens.config.unknown_names import built_in_instead, instead
from stresslens.core.errors import ConfigError, Notice, Problem, Problems
from stresslens.core.extras import require_for
from stresslens.core.pretrained import WeightsRef
from stresslens.core.spelling import unknown_key
from stresslens.core.types import (
    Attack,
    Augmentation,
    Loss,
    ModelFile,
    Objective,
    Optimizer,
    Schedule,
)

VOCABULARY: dict[str, tuple[str, ...]] = {
    "datasets": (),
    "augmentations": ("x", "y", "draws", "classes"),
    "models": ("shape", "classes", "names", "train", "members"),
    "estimators": ("seed",),
    "losses": ("logits", "y"),
    "optimizers": ("parameters", "lr", "net"),
    "schedules": ("optimizer", "steps", "steps_per_epoch"),
    "objectives": ("model", "x", "y", "step", "net", "inputs", "teacher"),
    "attacks": ("model", "x", "y", "ball", "draws", "watch", "target", "start", "surrogate"),
    "audits": ("table", "curve", "trace", "model", "images", "probe"),
    "checks": ("data", "pictures"),
    "corruptions": ("x", "draws", "severity"),
    "certificates": ("model", "x", "y", "draws"),
    "explainers": ("model", "x", "y", "draws", "train"),
    "views": ("model", "x", "y", "train", "split", "classes", "adversarials"),
    "detectors": ("features", "labels", "logits", "weight", "bias"),
    "trackers": ("folder", "config"),
}
"""Each folder, and the positional parameters that its functions may have; all are passed by keyword."""

MADE = ("datasets", "models", "estimators", "optimizers", "schedules", "detectors", "trackers")
"""The folders whose plug-ins return an object for later use; the others are called with what they work on."""

POSITIONS_IN_0_1_0: dict[str, tuple[str, ...]] = {
    "augmentations": ("x", "y", "draws", "classes"),
    "losses": ("logits", "y"),
    "optimizers": ("parameters", "lr"),
    "schedules": ("optimizer", "steps", "steps_per_epoch"),
    "objectives": ("model", "x", "y", "step", "net", "inputs"),
    "attacks": ("model", "x", "y", "ball", "draws", "watch", "target", "start", "surrogate"),
}
"""The order in which version 0.1.0 passed them. A custom plug-in may still call another plug-in,
which is its option, in this order. Do not change it when `VOCABULARY` gets a new word."""

NESTED: dict[Any, str] = {
    Attack: "attacks",
    Augmentation: "augmentations",
    Loss: "losses",
    Objective: "objectives",
    Optimizer: "optimizers",
    Schedule: "schedules",
}
"""An option with one of these annotations, or `PluginOption` of it, is a plug-in of that folder."""

Plugin = Callable[..., Any]
Keys = tuple[str | int, ...]
"""The path of a value in a configuration."""


@dataclass(frozen=True)
class Bound:
    """A plug-in with its options bound.

    It is called with the words of its folder's `VOCABULARY` as keywords and passes on those that
    the function has as parameters. A word that the caller leaves out is None.
    """

    folder: str
    function: Plugin
    options: Mapping[str, Any]
    """The options that were given, and the defaults that are plug-ins."""
    needs: tuple[str, ...]
    """The words of the vocabulary that the function has as parameters."""

    @property
    def all_options(self) -> dict[str, Any]:
        """All options, including those with their defaults."""
        declared = options_of(self.function)
        defaults = {
            name: option.default for name, option in declared.items() if option.default is not option.empty
        }
        return {**defaults, **self.options}

    def asks_for(self, need: str) -> bool:
        return need in self.needs

    def __call__(self, *by_position: Any, **given: Any) -> Any:
        """Calls the plug-in with what it asks for; a need that is not given is None.

        Raises TypeError for a keyword outside the vocabulary of its kind.
        """
        if by_position:
            given = {**self._named(by_position), **given}
        if unknown := given.keys() - set(VOCABULARY[self.folder]):
            words = ", ".join(VOCABULARY[self.folder]) or "nothing"
            raise TypeError(
                f"{_a(self.folder)} is called with {words}, by keyword, and not with {sorted(unknown)[0]}"
            )
        return self.function(**{need: given.get(need) for need in self.needs}, **self.options)

    def answer_beside(self, name: str, **given: Any) -> Any:
        """The result of the function `name` in the plug-in's file, called with the plug-in's options
        (defaults included) and `given`. None where there is no such function, or where it needs an
        option that the plug-in does not have."""
        function = beside(self.function, name)
        if function is None:
            return None
        known, parameters = {**self.all_options, **given}, inspect.signature(function).parameters.values()
        if any(p.default is p.empty and p.name not in known for p in parameters if p.kind == p.KEYWORD_ONLY):
            return None
        if not any(p.kind == p.VAR_KEYWORD for p in parameters):
            known = {p.name: known[p.name] for p in parameters if p.name in known}
        return function(**known)

    def _named(self, by_position: tuple[Any, ...]) -> dict[str, Any]:
        """The arguments of a positional call, as a plug-in of version 0.1.0 may make it, by
        name. Raises TypeError where there are too many."""
        order = POSITIONS_IN_0_1_0.get(self.folder, ())
        if len(by_position) > len(order):
            raise TypeError(
                f"{_a(self.folder)} is called by keyword, and not with {len(by_position)} positions"
            )
        _warn_of_positions(self.folder)
        return dict(zip(order, by_position))


@cache
def _warn_of_positions(folder: str) -> None:
    """Issues one Notice for each kind of plug-in."""
    order = POSITIONS_IN_0_1_0[folder]
    warnings.warn(
        f"{_a(folder)} is called by position here; call it by keyword, with the arguments it needs of "
        f"{', '.join(f'{word}={word}' for word in order)}",
        Notice,
        stacklevel=4,
    )


def names(folder: str) -> list[str]:
    """The names of a folder's built-in plug-ins, sorted."""
    return sorted(
        file.stem
        for file in (Path(__file__).parents[1] / "plugins" / folder).glob("*.py")
        if not file.stem.startswith("_")
    )


def all_names(folder: str) -> list[str]:
    """The names of a folder's built-in plug-ins and of those that installed packages bring, sorted."""
    return sorted({*names(folder), *installed_plugins(folder)})


def plugin(folder: str, name: str, *, base: Path | None = None, trust: bool = True) -> Plugin:
    """The function of a plug-in by its name: built-in, of an installed package, or custom as
    `file.py:function` (relative to `base`) or `module:function`. A class counts as a function.

    Raises ConfigError with the valid names where there is none, and for custom code without `trust`.
    """
    if ":" in name:
        if not trust:
            raise ConfigError(
                f"{name!r} is code from outside stresslens, which runs only if you trust it (--trust)"
            )
        return _loaded(folder, name, base)
    if name in names(folder):
        warn_of_hidden(folder, name)
        function: Plugin = getattr(importlib.import_module(f"stresslens.plugins.{folder}.{name}"), name)
        return function
    if (installed := installed_plugin(folder, name)) is not None:
        try:
            return _loaded(folder, installed.value, base)
        except ConfigError as error:
            raise ConfigError(f"the plug-in {name!r} of {installed.origin}: {error}") from None
    why = instead(folder, name, all_names(folder), catalogues)
    raise ConfigError(f"no {_singular(folder)} is called {name!r}{why}")


def catalogues() -> dict[str, Plugin]:
    """The function `catalogue` in the file of each model plug-in that has one, by the plug-in's name."""
    found = {}
    for name in all_names("models"):
        with suppress(ConfigError):  # a package's plug-in that cannot be imported
            found[name] = beside(plugin("models", name), "catalogue")
    return {name: catalogue for name, catalogue in found.items() if catalogue is not None}


def _loaded(folder: str, name: str, base: Path | None) -> Plugin:
    words, called = VOCABULARY[folder], folder not in MADE
    try:
        return load_own_plugin(name, base or Path.cwd(), kind=_a(folder), words=words, called=called)
    except ConfigError as error:
        raise ConfigError(f"{error}{built_in_instead(name, names(folder))}") from None


def resolve(
    folder: str, value: Any, *, path: Keys = (), base: Path | None = None, trust: bool = True
) -> Bound:
    """The plug-in of `name` or `{name: {option: value}}`, with its options checked against the
    function's signature and bound.

    Raises Problems, one for each wrong option, at its path.
    """
    function, checked = function_and_options(folder, value, path, base, trust)
    return bind(folder, function, checked)


def beside(function: Plugin, name: str) -> Plugin | None:
    """The optional function of this name in a plug-in's file, which gives a fact about the plug-in.
    It has keyword-only parameters; a function of the same name with others does not count."""
    candidate = vars(sys.modules[function.__module__]).get(name)
    if not inspect.isfunction(candidate):
        return None
    kinds = {parameter.kind for parameter in inspect.signature(candidate).parameters.values()}
    return candidate if kinds <= {inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD} else None


def bind(folder: str, function: Plugin, options: Mapping[str, Any]) -> Bound:
    """A plug-in bound to those of the options that its function has. They are not checked."""
    parameters = inspect.signature(function).parameters.values()
    needs = tuple(p.name for p in parameters if p.kind == p.POSITIONAL_OR_KEYWORD)
    return Bound(folder, function, {o: v for o, v in options.items() if o in options_of(function)}, needs)


def function_and_options(
    folder: str, value: Any, path: Keys, base: Path | None, trust: bool
) -> tuple[Plugin, dict[str, Any]]:
    """As `resolve`, before the options are bound."""
    name, options = name_and_options(folder, value, path)
    try:
        function = plugin(folder, name, base=base, trust=trust)
        require_for(function, name)
        if not trust and (reason := beside(function, "needs_trust")) is not None:
            raise ConfigError(f"the model {name}: {reason()}, which happens only if you trust it (--trust)")
    except ConfigError as error:
        raise Problems([Problem(path, str(error))]) from None
    declared = declared_by(folder, function)
    problems: list[Problem] = []
    checked: dict[str, Any] = {}
    for option, given in options.items():
        option_path = (*path, name, option)
        if option not in declared:
            what = f"{name} has no option {option!r}"
            problems.append(Problem(option_path, unknown_key(option, declared, what)))
            continue
        annotation = declared[option].annotation
        if option in COMMON_OPTIONS.get(folder, {}) and isinstance(given, Mapping):
            annotation = COMMON_OPTIONS[folder][option].annotation
        elif declared[option] is _WEIGHTS and given is not None:
            publish = beside(function, "published")
            names_of = [] if publish is None else [o for o in options_of(publish) if o != "name"]
            others = f", or {', '.join(names_of)}: true" if names_of else ""
            why = (
                f"{name} takes no weights by a name; give those of a run, {{run: NAME}}, "
                f"or of a file, {{file: PATH}}{others}"
            )
            problems.append(Problem(option_path, why))
            continue
        try:
            checked[option] = _checked(annotation, given, option_path, base, trust)
            if annotation == ModelFile:
                checked[option] = model_file_at(given, base or Path.cwd())
        except Problems as error:
            problems += error.problems
    missing = [o for o, p in declared.items() if p.default is p.empty and o not in options]
    problems += [Problem((*path, name), f"{name} needs the option {option!r}") for option in missing]
    for option, parameter in declared.items():
        if (
            option not in options
            and (nested := nested_folder(parameter.annotation)) is not None
            and isinstance(parameter.default, str | Mapping)
        ):
            checked[option] = resolve(nested, parameter.default, base=base, trust=trust)
    if isinstance(origin := checked.get("weights"), WeightsRef) and (wrong := origin.wrong()) is not None:
        problems.append(Problem((*path, name, "weights"), wrong))
    if problems:
        raise Problems(problems)
    return function, checked


def model_or_estimator(value: Any) -> str:
    """The configuration key of a plug-in, `model` or `estimator`, for a command that takes
    either."""
    return "estimator" if name_and_options("models", value)[0] in all_names("estimators") else "model"


def name_and_options(folder: str, value: Any, path: Keys = ()) -> tuple[str, Mapping[str, Any]]:
    """A plug-in's name and its options, from `name` or `{name: {option: value}}`. Raises
    Problems."""
    if isinstance(value, str):
        return value, {}
    if isinstance(value, Mapping) and len(value) == 1:
        name, options = next(iter(value.items()))
        if isinstance(name, str) and (options is None or isinstance(options, Mapping)):
            return name, options or {}
    raise Problems(
        [
            Problem(
                path,
                f"expected the name of {_a(folder)}, or one name with its options "
                "({name: {option: value}})",
            )
        ]
    )


@cache
def options_of(function: Plugin) -> dict[str, inspect.Parameter]:
    """A plug-in's options: its keyword-only parameters, with evaluated annotations."""
    parameters = evaluated_signature(function).parameters
    return {name: p for name, p in parameters.items() if p.kind == p.KEYWORD_ONLY}


def declared_by(folder: str, function: Plugin) -> dict[str, inspect.Parameter]:
    """Every option that a study may give: those of the function, and for a model also `weights` and
    those of the function `published` in its file."""
    published = beside(function, OPTIONS_BESIDE[folder]) if folder in OPTIONS_BESIDE else None
    others = COMMON_OPTIONS.get(folder, {}) | (options_of(published) if published is not None else {})
    options = options_of(function)
    return {**options, **{name: option for name, option in others.items() if name not in options}}


_WEIGHTS = inspect.Parameter(
    "weights", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=WeightsRef | None
)
_CORRECTIONS = inspect.Parameter(
    "corrections", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=str | None
)
COMMON_OPTIONS = {"models": {"weights": _WEIGHTS}, "datasets": {"corrections": _CORRECTIONS}}
"""Options that every plug-in of a folder has."""
OPTIONS_BESIDE = {"models": "published"}
"""The function in a plug-in's file whose options a study may give as the plug-in's own."""


def nested_folder(annotation: Any) -> str | None:
    """The folder of an option that is itself a plug-in; None for other options."""
    if get_origin(annotation) is Union and get_args(annotation)[1:] == (Any,):
        annotation = get_args(annotation)[0]
    return NESTED.get(annotation)


def _checked(annotation: Any, value: Any, path: Keys, base: Path | None, trust: bool) -> Any:
    if (nested := nested_folder(annotation)) is not None:
        return resolve(nested, value, path=path, base=base, trust=trust)
    try:
        adapter = adapter_of(annotation)
        try:  # through JSON: strict mode accepts a list for a tuple there only
            return adapter.validate_json(json.dumps(value), strict=True)
        except TypeError:
            return adapter.validate_python(value, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        raise Problems([Problem(path, f"{first['msg'].lower()}, got {value!r}")]) from None


@cache
def adapter_of(annotation: Any) -> TypeAdapter[Any]:
    try:
        return TypeAdapter(annotation, config=ConfigDict(allow_inf_nan=False))
    except PydanticUserError:
        return TypeAdapter(annotation)


def _a(folder: str) -> str:
    word = _singular(folder)
    return f"{'an' if word[0] in 'aeiou' else 'a'} {word}"


def _singular(folder: str) -> str:
    return {"losses": "loss"}.get(folder, folder.removesuffix("s"))
