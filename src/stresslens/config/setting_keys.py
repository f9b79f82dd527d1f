"""The dotted keys of all settings, and which of them an unknown key may stand for: `epochs` for
`train.epochs`, `trian.epochs` likewise, `eps` for an option of several plug-ins."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import SequenceMatcher, get_close_matches
from functools import cache
from typing import Any, get_args, get_type_hints

from stresslens.config import registry
from stresslens.config.dotted_keys import DEFAULTS, SLOTS
from stresslens.config.known_plugins import known_plugins
from stresslens.config.schema import VariantConfig
from stresslens.core.spelling import closest

MOST = 6
"""Most keys that a message names."""


@cache
def setting_keys() -> dict[str, bool]:
    """Every dotted key of a configuration, and whether it is a section with keys of its own. The
    options of plug-ins are not among them."""
    return dict(_keys_of(VariantConfig, ""))


def _keys_of(section: type, prefix: str) -> Iterator[tuple[str, bool]]:
    for name, annotation in get_type_hints(section).items():
        below = [
            each for each in (annotation, *get_args(annotation)) if hasattr(each, "__dataclass_fields__")
        ]
        yield f"{prefix}{name}", bool(below)
        for each in below:
            yield from _keys_of(each, f"{prefix}{name}.")


@cache
def option_keys() -> dict[str, tuple[str, ...]]:
    """The dotted key of every option of a plug-in that has a name, with the plug-ins that have it:
    `train.optimizer.momentum` of momentum, nesterov and rmsprop."""
    found: dict[str, list[str]] = {}
    for path, folder in SLOTS.items():
        for name, function in known_plugins(folder).items():
            for option in registry.declared_by(folder, function):
                found.setdefault(".".join(map(str, (*path, option))), []).append(name)
    return {key: tuple(names) for key, names in found.items()}


def unknown_setting(dotted: str, values: Mapping[str, Any]) -> str | None:
    """What is wrong with a dotted key that no configuration has; None for the others. Options of
    plug-ins are checked with the plug-in. `values` is the configuration that the key changes."""
    known, parts = setting_keys(), dotted.split(".")
    if dotted in known:
        return None
    for length in range(len(parts) - 1, 0, -1):
        start = ".".join(parts[:length])
        if start in known:
            if not known[start]:
                return None
            break
    else:
        start = ""
    if meant := keys_meant(dotted, values):
        return f"unknown key; did you mean {meant}?"
    siblings = [key for key in known if key.rpartition(".")[0] == start]
    return f"unknown key; {closest(dotted, siblings)}"


def keys_meant(dotted: str, values: Mapping[str, Any]) -> str:
    """The keys that an unknown one may stand for, in words; empty if none is near."""
    leaf = dotted.rpartition(".")[2]
    settings = dict.fromkeys(setting_keys(), "") | _options(values)
    found = [key for key in settings if key.rpartition(".")[2] == leaf and key != dotted]
    if not found:
        plain = list(setting_keys())
        leaves = {key.rpartition(".")[2] for key in plain}
        near = set(get_close_matches(leaf, leaves, n=2, cutoff=0.75))
        found = [key for key in plain if key.rpartition(".")[2] in near]
        found += [key for key in get_close_matches(dotted, plain, n=2, cutoff=0.8) if key not in found]
    found.sort(key=lambda key: (bool(settings[key]), -SequenceMatcher(None, dotted, key).ratio()))
    named = [f"{key}{settings[key]}" for key in found[:MOST]] + ["…"] * (len(found) > MOST)
    return " or ".join(filter(None, [", ".join(named[:-1]), *named[-1:]]))


def _options(values: Mapping[str, Any]) -> dict[str, str]:
    """The options of plug-ins, each with the plug-ins that have it in words; in no words for a
    plug-in that `values` name or leave at its default."""
    chosen = set()
    for path in SLOTS:
        at: Any = values
        for key in path:
            at = at.get(key) if isinstance(at, Mapping) else None
        at = DEFAULTS[path] if at is None else at
        name = next(iter(at), None) if isinstance(at, Mapping) else at
        chosen.add((".".join(map(str, path)), name if isinstance(name, str) else None))
    return {
        key: ""
        if any((key.rpartition(".")[0], name) in chosen for name in names)
        else f" (an option of {', '.join(names[:4])}{', …' if len(names) > 4 else ''})"
        for key, names in option_keys().items()
    }
