"""What the name of an unknown plug-in may be instead: a path, or a model of a zoo."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from stresslens.core.errors import ConfigError
from stresslens.core.spelling import closest


def instead(
    folder: str, name: str, valid: list[str], catalogues: Callable[[], Mapping[str, Callable[..., Any]]]
) -> str:
    """What to write instead, for the message that no plug-in of the folder has this name; `valid` are
    the names of the plug-ins, `catalogues` gives the functions that list the models of the zoos."""
    if folder == "models" and (in_zoos := _in_zoos(name, catalogues())):
        return in_zoos
    path = ""
    if folder == "datasets":
        exists = os.path.exists(name)  # False for a name that no file can have
        path = (
            f"; for the images at that path: {{{dataset_of_file(name)}: {{path: {name}}}}}"
            if exists
            else ", and there is no file or folder of that name"
        )
    return f"{path}; {closest(name, valid)}"


def dataset_of_file(path: str) -> str:
    """The name of the dataset that reads what lies at a path."""
    return "npz" if path.lower().endswith(".npz") else "folder"


def _in_zoos(name: str, catalogues: Mapping[str, Callable[..., Any]]) -> str:
    """The zoos that have a model of this name, and how to write it; empty where none has."""
    zoos = []
    for plugin, catalogue in catalogues.items():
        with suppress(ConfigError):  # its library is not installed
            zoos += [plugin] if name in catalogue() else []
    if not zoos:
        return ""
    return (
        f"; it is a model of {' and '.join(zoos)}: write {{{zoos[-1]}: {{name: {name}}}}}, on the command "
        f"line in quotes; `stresslens list models {name}` shows its published weights"
    )


def built_in_instead(name: str, built_in: list[str]) -> str:
    """The built-in plug-in that a function of torch (`torch.nn.functional:mse_loss`) stands for."""
    module, _, function = name.rpartition(":")
    meant = next((each for each in (function, function.removesuffix("_loss")) if each in built_in), None)
    return f"; use the built-in {meant!r}" if meant and module.startswith("torch.") else ""
