"""Arguments of the public functions: paths, names, numbers, models, data sets and trackers."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from stresslens.config.data_paths import images_at
from stresslens.config.registry import model_or_estimator
from stresslens.config.unknown_names import dataset_of_file
from stresslens.config.validation import applies_to_estimators
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


def check_whole_number(name: str, value: Any, least: int = 1) -> None:
    """Raises ConfigError unless an argument is None or a whole number from `least` up."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
        raise ConfigError(f"{name} is {value!r}; expected a whole number from {least} up")


def model_key(model: Any, settings: Iterable[str], hint: str = "") -> str:
    """The key of a study file for what is trained: "model", or "estimator". Raises ConfigError for anything
    that is no model, with the `hint`, and for a setting (`train.lr`) that means nothing to an estimator."""
    if not isinstance(model, str | Mapping | nn.Module):
        hint = f"; make a module of it: {model.__name__}(…)" if isinstance(model, type) else hint
        raise ConfigError(f"model is {kind_of(model)}; expected a plug-in by name or a torch.nn.Module{hint}")
    key = "model" if isinstance(model, nn.Module) else model_or_estimator(model)
    idle = [each for each in settings if key == "estimator" and not applies_to_estimators(each)]
    if idle:
        what = f"{idle[0].rpartition('.')[2]} means nothing to the estimator {model!r}"
        raise ConfigError(f"{what}, which no gradient trains; leave it out")
    return key


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
