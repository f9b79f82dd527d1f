"""Deprecated keys and values of version 0.1.0 in study files, options and calls.

They are renamed before anything is validated, with one Notice. Fingerprints use the words of 0.1.0,
so a run that was made before a rename is still recognised.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from stresslens.core.errors import Notice, Problem, Problems

Path = tuple[str, ...]

KEYS: dict[Path, str] = {
    ("curve",): "data_sizes",
    ("train", "tune"): "fine_tune",
    ("train", "fine_tune", "every"): "unfreeze_every",
    ("train", "fine_tune", "decay"): "layer_decay",
    ("train", "fine_tune", "head_rate"): "head_lr_scale",
    ("robustness", "alone"): "individual_attacks",
    ("robustness", "passes"): "eot_samples",
    ("explain", "answer"): "target_class",
}
"""The path of an old key, whose parent keys have their new names, and its new name."""

VALUES: dict[Path, dict[str, str]] = {
    ("explain", "choose"): {
        "surest_right": "most_confident_correct",
        "surest_wrong": "most_confident_wrong",
        "least_sure": "least_confident",
        "cells": "confused_pairs",
    },
    ("views",): {"counterfactual": "adversarial_examples"},
}
VALUES[("views", "choose")] = VALUES[("explain", "choose")]
VALUES[("views", "kinds")] = VALUES[("views",)]
"""The path of a value, and its old names with the new ones: a choice, or a plug-in."""

OnRename = Callable[[str, str], None]
"""Called with the old and the new word."""


def renamed(values: Mapping[str, Any], below: Path = ()) -> dict[str, Any]:
    """Plain values of a study, or of its section `below`, with the new words. One Notice names
    those that were renamed."""
    seen: dict[str, str] = {}
    words = _Words(KEYS, VALUES, seen.__setitem__)
    result = words.study(values) if not below else words.section(values, below)
    _warn_of_renames(seen)
    if words.problems:
        raise Problems(words.problems)
    return result


def renamed_override(key: str, value: Any) -> tuple[str, Any]:
    """An override of the command line with the new words: `train.tune.every` becomes
    `train.fine_tune.unfreeze_every`, with a Notice."""
    seen: dict[str, str] = {}
    words = _Words(KEYS, VALUES, seen.__setitem__)
    new = words.dotted(key)
    value = words.section(value, tuple(new.split(".")))
    _warn_of_renames(seen)
    return new, value


def _warn_of_renames(seen: Mapping[str, str]) -> None:
    """Issues one Notice that names all the old words in `seen`."""
    if seen:
        words = ", ".join(f"{old} is now {new}" for old, new in seen.items())
        warnings.warn(f"{words}; the old words still work", Notice, stacklevel=4)


def in_todays_words(values: Mapping[str, Any]) -> dict[str, Any]:
    """As `renamed`, without a Notice: for a file that an earlier version wrote."""
    return _Words(KEYS, VALUES, lambda old, new: None).study(values)


def settings_in_todays_words(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Values by dotted keys, as a sweep's journal holds them."""
    result: dict[str, Any] = _Words(KEYS, VALUES, lambda old, new: None).changes(settings)
    return result


def settings_in_words_of_0_1(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The reverse of `settings_in_todays_words`; a journal keeps the words of 0.1.0."""
    result: dict[str, Any] = _Words(_OLD_KEYS, _OLD_VALUES, lambda new, old: None).changes(settings)
    return result


def place_in_todays_words(keys: Sequence[str | int]) -> tuple[str | int, ...]:
    """The path of a value in a study file, with the new words."""
    return _Words(KEYS, VALUES, lambda old, new: None).path_of(keys)


def in_words_of_0_1(values: Any, below: Path = ()) -> Any:
    """Plain values of a study, or of its section `below`, with the words of 0.1.0 that fingerprints
    use."""
    words = _Words(_OLD_KEYS, _OLD_VALUES, lambda new, old: None)
    return words.section(values, below) if below else words.study(values)


@dataclass(frozen=True)
class _Words:
    """Renames keys and values, and calls `on_rename` for each."""

    keys: Mapping[Path, str]
    values: Mapping[Path, Mapping[str, str]]
    on_rename: OnRename
    problems: list[Problem] = field(default_factory=list)
    """Keys that are given under their old and their new name."""

    def study(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """A whole study: its sections, and the dotted keys under runs, grid, sweep and
        contrasts."""
        result: dict[str, Any] = {}
        self._check_twice({key: self._key((), key) for key in values}, ())
        for key, value in values.items():
            if key == "runs" and isinstance(value, Mapping):
                result[key] = {name: self.changes(changes, (key, name)) for name, changes in value.items()}
            elif key == "grid":
                result[key] = self.changes(value, (key,))
            elif key == "sweep" and isinstance(value, Mapping):
                result[key] = {name: self._of_sweep(name, part) for name, part in value.items()}
            elif key == "contrasts" and isinstance(value, Mapping):
                result[key] = {name: self._contrast(contrast) for name, contrast in value.items()}
            else:
                new = self._key((), key)
                result[new] = self.section(value, (new,))
        return result

    def section(self, values: Any, path: Path) -> Any:
        """The value at a path of a configuration."""
        if isinstance(values, Mapping):
            new = {key: self._key(path, key) for key in values}
            self._check_twice(new, path)
            return {new[key]: self.section(value, (*path, new[key])) for key, value in values.items()}
        if isinstance(values, list | tuple):
            return [self.section(item, path) for item in values]
        return self._value(path, values)

    def dotted(self, key: str) -> str:
        path: Path = ()
        for part in key.split("."):
            path = (*path, self._key(path, part))
        return ".".join(path)

    def path_of(self, keys: Sequence[str | int]) -> tuple[str | int, ...]:
        dotted_at = {"runs": 2, "grid": 1, "sweep": 2}.get(str(keys[0]) if keys else "")
        if keys[:2] == ("sweep", "settings"):  # a list of settings
            dotted_at = 3
        if dotted_at is not None:
            rest = keys[dotted_at : dotted_at + 1]
            dotted = [key if isinstance(key, int) else self.dotted(key) for key in rest]
            return (*keys[:dotted_at], *dotted, *keys[dotted_at + 1 :])
        path: Path = ()
        new_path: list[str | int] = []
        for key in keys:
            new_path.append(key if isinstance(key, int) else self._key(path, key))
            path = path if isinstance(key, int) else (*path, str(new_path[-1]))
        return tuple(new_path)

    def _check_twice(self, new: Mapping[str, str], path: Path) -> None:
        for key in new:
            if new[key] != key and new[key] in new:
                why = f"is the old name of {new[key]}; give one of them"
                self.problems.append(Problem((*path, new[key]), f"{key} {why}"))

    def changes(self, changes: Any, path: Path = ()) -> Any:
        """Values by dotted keys; they stand at `path` of a study."""
        if not isinstance(changes, Mapping):
            return changes
        new = {key: self.dotted(key) for key in changes}
        self._check_twice(new, path)
        return {new[key]: self.section(value, tuple(new[key].split("."))) for key, value in changes.items()}

    def _of_sweep(self, name: str, part: Any) -> Any:
        if name == "where" and isinstance(part, list):
            return [
                " ".join(map(self.dotted, text.split(" "))) if isinstance(text, str) else text
                for text in part
            ]
        at = ("sweep", name)
        return [self.changes(each, at) for each in part] if isinstance(part, list) else self.changes(part, at)

    def _contrast(self, contrast: Any) -> Any:
        if isinstance(contrast, Mapping) and isinstance(contrast.get("vary"), str):
            return {**contrast, "vary": self.dotted(contrast["vary"])}
        return contrast

    def _key(self, path: Path, key: Any) -> Any:
        new = self.keys.get((*path, key)) or self.values.get(path, {}).get(key, key)
        if new != key:
            self.on_rename(".".join((*path, key)), new)
        return new

    def _value(self, path: Path, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        new = self.values.get(path, {}).get(value, value)
        if new != value:
            self.on_rename(value, new)
        return new


_OLD = {new: path[-1] for path, new in KEYS.items()}
_OLD_KEYS = {(*(_OLD.get(part, part) for part in path[:-1]), new): path[-1] for path, new in KEYS.items()}
_OLD_VALUES: dict[Path, dict[str, Any]] = {
    **{path: {new: old for old, new in words.items()} for path, words in VALUES.items()},
    ("explain", "images"): {"auto": 10},  # the defaults of versions before 0.4.0
    ("explain", "check"): {"auto": True},
}
