"""Dotted keys of a recipe (`train.lr`, `model.batch_norm`): where plug-ins stand, and setting one value."""

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
"""Where a plug-in stands."""

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
"""Where a list of them stands."""

_DEFAULTS = {path: getattr(VariantConfig() if len(path) == 1 else Train(), str(path[-1])) for path in SLOTS}


def set_dotted(values: dict[str, Any], dotted: str, value: Any) -> Keys:
    """Sets one dotted key, passing over a plug-in's name (`model.batch_norm`), and returns the full
    path it set."""
    keys = dotted.split(".")
    path: Keys = ()
    at: Any = values
    for place, key in enumerate(keys):
        path += (key,)
        if place == len(keys) - 1:
            break
        if at.get(key) is None:
            at[key] = _DEFAULTS[path] if path in SLOTS else {}
        if path in SLOTS:
            if isinstance(at[key], str):
                at[key] = {at[key]: {}}
            name = next(iter(at[key]), None) if isinstance(at[key], dict) else None
            if name is None:
                raise ConfigError(
                    f"{'.'.join(map(str, path))} names no plug-in to set {'.'.join(keys[place + 1 :])} of"
                )
            if keys[place + 1] != name:
                at[key][name] = at[key][name] or {}
                at, path = at[key][name], (*path, name)
                continue
        if not isinstance(at[key], dict):
            raise ConfigError(
                f"{'.'.join(map(str, path))} has no settings of its own, so {dotted} cannot be set"
            )
        at = at[key]
    at[keys[-1]] = value
    return path


def get_dotted(values: Mapping[str, Any], dotted: str) -> Any:
    """The value at a dotted key, passing over plug-ins' names as `set_dotted` does. Raises KeyError
    where nothing is set."""
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
    """Settings that are set, by their dotted names, as one overrides them: `model` and
    `model.batch_norm`, `train.lr`."""
    for key, value in values.items():
        here = (*path, key)
        dotted = ".".join(map(str, here))
        if here in SLOTS:
            name, value = name_and_options(SLOTS[here], value)
            yield dotted, name
        if isinstance(value, Mapping):
            yield from settings(value, here)
        elif value is not None:
            yield dotted, value if isinstance(value, bool | int | float | str) else json.dumps(value)
