"""Overrides of the command line, `key.path=value`: changes of every variant of a study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stresslens.config import old_words
from stresslens.config.grid import Change
from stresslens.config.setting_keys import keys_meant, setting_keys
from stresslens.config.study_keys import STUDY_KEYS
from stresslens.config.yaml_source import parse_value
from stresslens.core.errors import Problem


def overrides_of(
    values: Mapping[str, Any], overrides: Sequence[str], problems: list[Problem]
) -> tuple[dict[str, Any], list[Change]]:
    """The study's values with `repeats` of the overrides, and the other overrides as changes of
    every variant. One that cannot be read is added to `problems`."""
    values = dict(values)
    changes: list[Change] = []
    for text in overrides:
        key, equals, value = text.partition("=")
        at = ("command line", text)
        if not equals or not key:
            why = "an override is written key.path=value, for example train.epochs=1"
            problems.append(Problem(at, f"{why}{_meant_by(text)}"))
        elif key == "repeats":
            values["repeats"] = parse_value(value)
        elif key.partition(".")[0] in STUDY_KEYS:
            why = f"{key.partition('.')[0]} belongs to the study file and cannot be overridden"
            problems.append(Problem(at, f"{why}{_option_for(key, value)}"))
        elif option := _option_for(key, value):
            problems.append(Problem(at, f"unknown key{option}"))
        else:
            key, parsed = old_words.renamed_override(key, parse_value(value))
            changes.append((key, parsed, ("command line", f"{key}={parsed}")))
    return values, changes


_OPTIONS = ("out", "jobs", "executor", "name", "fail-under")
"""Options of the command line that are written like overrides by mistake."""


def _option_for(key: str, value: str) -> str:
    """What to write instead of an override that is an option; empty for other keys."""
    if key in ("seed", "seeds"):
        return f"; for one seed write repeats=[{value}], on the command line also --seed {value}"
    return f"; on the command line write --{key} {value}" if key in _OPTIONS else ""


def _meant_by(text: str) -> str:
    """The setting that a word without a value may name."""
    meant = keys_meant(text, {}) if text.isidentifier() and text not in setting_keys() else ""
    return f"; did you mean {meant}?" if meant else ""
