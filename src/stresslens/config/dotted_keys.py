"""Dotted keys of a configuration (`train.lr`, `model.batch_norm`): reads and sets one value, and
lists which keys hold plug-ins."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from stresslens.config.registry import Keys, name_and_options
from stresslens.config.schema import Train, VariantConfig
from stresslens.core.errors import ConfigError

SLOTS: dict[Keys, str] = {
    ("data",): "datasets",
    ("model",): "models",
    ("estimator",): "estimators",
    ("train", "optimizer"): "optimizers",
    ("train", "schedule"): "schedules",
    ("train", "loss"): "losses",
    ("train", "objective"): "objectives",
}
"""The keys that hold one plug-in, and its folder."""

LISTS: dict[Keys, str] = {
    ("train", "augment"): "augmentations",
    ("corruptions",): "corruptions",
    ("corruptions", "kinds"): "corruptions",
    ("explain",): "explainers",
    ("explain", "explainers"): "explainers",
    ("views",): "views",
    ("views", "kinds"): "views",
    ("track",): "trackers",
}
"""The keys that hold a list of plug-ins, and their folder."""

DEFAULTS = {path: getattr(VariantConfig() if len(path) == 1 else Train(), str(path[-1])) for path in SLOTS}


SECTIONS = ("train", "input")
"""Sections of which a change sets single keys; the rest of the file has the others."""


def single_settings(changes: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The path and value of each change: of `train: {ema: 0.9}` those of `train.ema`, so that the other
    settings of the section stay as they are. A path has two parts where the section was written so."""
    for key, value in changes.items():
        if key in SECTIONS and isinstance(value, Mapping):
            yield from (((key, below), each) for below, each in value.items())
        else:
            yield (key,), value


def set_dotted(values: dict[str, Any], dotted: str, value: Any) -> Keys:
    """Sets the value at one dotted key and returns its full path. The plug-in's name may be left
    out (`model.batch_norm`). Raises ConfigError where the key cannot have this setting."""
    keys = dotted.split(".")
    path: Keys = ()
    at: Any = values
    for index, key in enumerate(keys):
        path += (key,)
        if index == len(keys) - 1:
            break
        if at.get(key) is None:
            at[key] = DEFAULTS[path] if path in SLOTS else {}
        if path in SLOTS:
            if isinstance(at[key], str):
                at[key] = {at[key]: {}}
            name = next(iter(at[key]), None) if isinstance(at[key], dict) else None
            if name is None:
                option = ".".join(keys[index + 1 :])
                raise ConfigError(f"{'.'.join(map(str, path))} names no plug-in, so {option} cannot be set")
            if keys[index + 1] != name:
                at, key, path = at[key], name, (*path, name)
                at[key] = at[key] or {}
        if not isinstance(at[key], dict):
            raise ConfigError(
                f"{'.'.join(map(str, path))} is not a section with settings, so {dotted} cannot be set"
            )
        at = at[key]
    at[keys[-1]] = value
    return path


def get_dotted(values: Mapping[str, Any], dotted: str) -> Any:
    """The value at a dotted key; plug-ins' names may be left out, as in `set_dotted`. Raises
    KeyError where nothing is set."""
    at: Any = values
    path: Keys = ()
    for key in dotted.split("."):
        if path in SLOTS and isinstance(at, Mapping) and len(at) == 1 and key not in at:
            at = next(iter(at.values()))
        if not isinstance(at, Mapping) or key not in at:
            raise KeyError(dotted)
        at, path = at[key], (*path, key)
    return at


def settings(values: Mapping[str, Any], path: Keys = ()) -> Iterator[tuple[str, bool | int | float | str]]:
    """The settings that have a value, by dotted key as an override writes it: `model`,
    `model.batch_norm`, `train.lr`."""
    for key, value in values.items():
        key_path = (*path, key)
        dotted = ".".join(map(str, key_path))
        if key_path in SLOTS:
            name, value = name_and_options(SLOTS[key_path], value)
            yield dotted, name
        if isinstance(value, Mapping):
            yield from settings(value, key_path)
        elif value is not None:
            yield dotted, value if isinstance(value, bool | int | float | str) else json.dumps(value)
