"""Overrides of the command line, `key.path=value`: changes of every variant, or of a key of the study
itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from stresslens.config import old_words
from stresslens.config.grid import Change
from stresslens.config.registry import Keys
from stresslens.config.setting_keys import keys_meant, setting_keys
from stresslens.config.study_keys import STUDY_KEYS, VARIANT_KEYS
from stresslens.config.yaml_source import parse_value
from stresslens.core.errors import Problem
from stresslens.core.spelling import unknown_key

OF_STUDY = (*STUDY_KEYS, "curve")
"""The keys of the study itself, the one of version 0.1.0 included."""


@dataclass(frozen=True)
class Overrides:
    """What overrides change."""

    values: dict[str, Any]
    """The study's values, with those of its own keys that were overridden."""
    changes: list[Change]
    """The changes of every variant."""
    origins: dict[Keys, Keys]
    """Which override set a value of `values`, by its path."""
    named: list[str]
    """The overrides that are a part of the folders' names."""


def overrides_of(values: Mapping[str, Any], overrides: Sequence[str], problems: list[Problem]) -> Overrides:
    """Applies overrides to the values of a study file, which may have words of version 0.1.0. One
    that cannot be read is added to `problems`."""
    values = dict(values)
    changes: list[Change] = []
    origins: dict[Keys, Keys] = {}
    for text in overrides:
        key, equals, value = text.partition("=")
        at: Keys = ("command line", text)
        if not equals or not key:
            why = "an override is written key.path=value, for example train.epochs=1"
            problems.append(Problem(at, f"{why}{_meant_by(text)}"))
        elif key.partition(".")[0] in OF_STUDY:
            path = _path_in_study(key, values)
            _set(values, path, parse_value(value))
            origins[old_words.place_in_todays_words(path)] = at
        elif option := _option_for(key, value):
            problems.append(Problem(at, f"unknown key{option}"))
        elif key.partition(".")[0] not in VARIANT_KEYS:
            problems.append(Problem(at, _unknown(key, values)))
        else:
            key, parsed = old_words.renamed_override(key, parse_value(value))
            changes.append((key, parsed, ("command line", f"{key}={parsed}")))
    unnamed = ("track", *OF_STUDY)
    named = [text for text in overrides if text.partition("=")[0].partition(".")[0] not in unnamed]
    return Overrides(values, changes, origins, named)


def _path_in_study(key: str, values: Mapping[str, Any]) -> tuple[str, ...]:
    """The path of a dotted key of the study itself. Keys below `grid` and `sweep.space` are dotted
    themselves, and so may names of variants and contrasts be."""
    top, _, rest = key.partition(".")
    if not rest:
        return (top,)
    if top == "grid":
        return (top, rest)
    if rest.startswith("space.") and top == "sweep":
        return (top, "space", rest.removeprefix("space."))
    if top in ("runs", "contrasts"):
        known = values.get(top)
        names = (
            [name for name in known if f"{rest}.".startswith(f"{name}.")]
            if isinstance(known, Mapping)
            else []
        )
        name = max(names, key=len, default=rest.partition(".")[0])
        return tuple(filter(None, (top, name, rest[len(name) + 1 :])))
    return (top, *rest.split("."))


def _set(values: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    """Sets the value at a path; a part of it that is no section becomes one. The sections on the way are
    copied."""
    for key in path[:-1]:
        section = values.get(key)
        values[key] = dict(section) if isinstance(section, Mapping) else {}
        values = values[key]
    values[path[-1]] = value


_OPTIONS = ("out", "jobs", "name", "fail-under", "fail-over")
"""Options of the command line that are written like overrides by mistake."""


def _option_for(key: str, value: str) -> str:
    """What to write instead of an override that is an option; empty for other keys."""
    if key in ("seed", "seeds"):
        return f"; for one seed write repeats=[{value}], on the command line also --seed {value}"
    return f"; on the command line write --{key} {value}" if key in _OPTIONS else ""


def _unknown(key: str, values: Mapping[str, Any]) -> str:
    """The message for a key that is neither the study's own nor of a variant."""
    top, dot, rest = key.partition(".")
    is_setting = any(each.rpartition(".")[2] == key for each in setting_keys())
    if not is_setting and (similar := get_close_matches(top, STUDY_KEYS, n=1, cutoff=0.7)):
        return f"unknown key; did you mean {similar[0]}{dot}{rest}?"
    if meant := keys_meant(key, values):
        return f"unknown key; did you mean {meant}?"
    return unknown_key(top, [*VARIANT_KEYS, *STUDY_KEYS])


def _meant_by(text: str) -> str:
    """The setting that a word without a value may name."""
    meant = keys_meant(text, {}) if text.isidentifier() and text not in setting_keys() else ""
    return f"; did you mean {meant}?" if meant else ""
