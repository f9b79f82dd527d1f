"""The settings of a study's variants: a column for each in which they differ, and those that all share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import yaml

from stresslens.config import dotted_keys
from stresslens.config.old_words import in_todays_words
from stresslens.config.study_keys import STUDY_KEYS
from stresslens.core.errors import StresslensError
from stresslens.core.text import brief
from stresslens.report.load import Run, StudyFolder

VALUE = 60
"""The most characters of a value."""


@dataclass(frozen=True)
class SettingsTable:
    """`rows` are variants with their folder and one value for each of the `keys`, a dash where the
    setting does not apply; `shared` are the settings that are the same for all."""

    keys: Sequence[str]
    rows: Sequence[tuple[str, str, Sequence[str]]]
    shared: Sequence[tuple[str, str]]


def settings_table(study: StudyFolder) -> SettingsTable | None:
    """None without a readable config.yaml."""
    found = {
        variant.name: (variant.folder.name, values)
        for variant in study.variants
        if variant.shown is not None and (values := _settings_of(variant.shown))
    }
    if not found:
        return None
    keys = list(dict.fromkeys(key for _, values in found.values() for key in values))
    differing = [key for key in keys if len({values.get(key) for _, values in found.values()}) > 1]
    first = next(iter(found.values()))[1]
    return SettingsTable(
        differing,
        [
            (name, folder, [brief(values.get(key, "–"), VALUE) for key in differing])
            for name, (folder, values) in found.items()
        ],
        [(key, brief(first[key], VALUE)) for key in keys if key not in differing],
    )


def _settings_of(run: Run) -> dict[str, str]:
    try:
        plain = in_todays_words(yaml.safe_load(run.config))
        values = {key: value for key, value in plain.items() if key not in STUDY_KEYS}
        return {key: str(value) for key, value in dotted_keys.settings(values)}
    except (yaml.YAMLError, AttributeError, TypeError, ValueError, StresslensError):
        return {}
