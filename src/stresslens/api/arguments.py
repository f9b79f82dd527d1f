"""Arguments of the public functions: paths, names, data sets and trackers."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stresslens.config.data_paths import images_at
from stresslens.config.unknown_names import dataset_of_file
from stresslens.core.errors import ConfigError


def kind_of(value: Any) -> str:
    """What a value is, in words: a Sequential, an int, None, the class Linear."""
    if value is None or isinstance(value, type):
        return "None" if value is None else f"the class {value.__name__}"
    name = type(value).__name__
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


def path_of(value: Any, what: str) -> Path:
    """A path that the caller gives. Raises ConfigError for anything else."""
    if isinstance(value, str | os.PathLike) and os.fspath(value):
        return Path(value)
    said = repr(value) if isinstance(value, str) else kind_of(value)
    raise ConfigError(f"{what} is {said}; expected a path")


def is_word(value: Any) -> bool:
    """Whether a value is a word, such as the name of a plug-in, and not the path of an image."""
    return isinstance(value, str) and value.isidentifier() and not os.path.exists(value)


def is_radii(value: Any) -> bool:
    """Whether a value is a radius or a list of radii: `0.1`, "8/255", [0, 0.05]."""
    if isinstance(value, list | tuple):
        return bool(value) and all(is_radii(each) and not isinstance(each, list | tuple) for each in value)
    if isinstance(value, str):
        return re.fullmatch(r"[\d./:,]*\d", value) is not None and not os.path.exists(value)
    return isinstance(value, int | float) and not isinstance(value, bool)


def folder_name_of(name: Any) -> str | None:
    """A name for a folder. Raises ConfigError for anything but text without a separator of paths."""
    if name is None or (isinstance(name, str) and name and not {"/", "\\"} & set(name) and name.strip(".")):
        return name
    raise ConfigError(f"name is {name!r:.60}; expected the name of a folder")


def plain_data(data: Any) -> str | Mapping[str, Any]:
    """A data set as a study file names it, from its name, its name with options, or the path of its
    images. Raises ConfigError for anything else."""
    if isinstance(data, Mapping):
        return data
    if isinstance(data, os.PathLike):
        return {dataset_of_file(path := os.fspath(data)): {"path": path}}
    if isinstance(data, str):
        return images_at(data) or data
    raise ConfigError(
        f"data is {kind_of(data)}; expected a plug-in by name, the path of your images, or "
        "stresslens.Data.from_arrays(images, labels)"
    )


def views_of(tta: Any) -> list[str]:
    """The views of test-time augmentation: one by its name, or several. Raises ConfigError for anything
    else; which names there are is checked later."""
    listed = [tta] if isinstance(tta, str) else list(tta) if isinstance(tta, Sequence) else None
    if listed is None or not all(isinstance(each, str) for each in listed):
        raise ConfigError(f"tta is {tta!r:.60}; expected a view such as 'flip', or a list of views")
    return listed


def trackers_of(track: Any) -> tuple[list[Any], tuple[Any, ...]]:
    """The trackers that are named, as a study file lists them, and those that are the caller's own objects.
    Raises ConfigError for anything else."""
    listed = list(track) if isinstance(track, Sequence) and not isinstance(track, str) else [track]
    named = [each for each in listed if isinstance(each, str | Mapping)]
    own = tuple(each for each in listed if not isinstance(each, str | Mapping))
    for each in own:
        if not callable(each) and not callable(getattr(each, "log", None)):
            raise ConfigError(
                f"track: {each!r:.60} is no tracker; expected a plug-in by name, a function of an entry, or "
                "an object with log(entry) and close()"
            )
    return named, own
