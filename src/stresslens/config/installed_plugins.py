"""Plug-ins that installed packages bring, as entry points of the group `stresslens.KIND`.

In the package's pyproject.toml:

    [project.entry-points."stresslens.attacks"]
    mim = "stresslens_mim:mim"

It is named like a built-in one, and trusted as all code that is installed.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from typing import Any

from stresslens.core.errors import ConfigError, Notice


@dataclass(frozen=True)
class InstalledPlugin:
    """A plug-in of an installed package: `value` is `module:function`."""

    name: str
    value: str
    package: str
    version: str

    @property
    def origin(self) -> str:
        return f"{self.package} {self.version}".strip()


@cache
def installed_plugins(folder: str) -> dict[str, tuple[InstalledPlugin, ...]]:
    """The plug-ins of a kind that installed packages bring, by name; more than one where packages use
    the same name for different things."""
    found: dict[str, dict[str, InstalledPlugin]] = defaultdict(dict)
    for point in entry_points(group=f"stresslens.{folder}"):
        package, version = (point.dist.name, point.dist.version) if point.dist else ("an unknown package", "")
        found[point.name][point.value] = InstalledPlugin(point.name, point.value, package, version)
    return {name: tuple(found[name].values()) for name in sorted(found)}


def installed_plugin(folder: str, name: str) -> InstalledPlugin | None:
    """The plug-in of this name. Raises ConfigError where several packages bring one."""
    found = installed_plugins(folder).get(name, ())
    if len(found) > 1:
        origins = " and ".join(sorted(f"{each.origin} ({each.value})" for each in found))
        raise ConfigError(f"{name!r} is a plug-in of {origins}; name the one you mean by its module:function")
    return found[0] if found else None


@cache
def warn_of_hidden(folder: str, name: str) -> None:
    """Says once that a built-in plug-in hides those of the same name that packages bring."""
    for hidden in installed_plugins(folder).get(name, ()):
        warnings.warn(
            f"{name!r} is the built-in plug-in of stresslens; that of {hidden.origin} has the same name and "
            f"is not used. To use it, name it {hidden.value!r}",
            Notice,
            stacklevel=4,
        )


def packages_of(values: Any, folders: Mapping[str, object]) -> dict[str, str]:
    """The packages, with their versions, whose plug-ins are named in plain values."""
    words = _words(values)
    return {
        plugin.package: plugin.version
        for folder in folders
        for name, plugins in installed_plugins(folder).items()
        for plugin in plugins
        if name in words
    }


def _words(values: Any) -> set[str]:
    """Every key and word in plain values, at any depth."""
    if isinstance(values, Mapping):
        return set().union(*(_words(part) for item in values.items() for part in item))
    if isinstance(values, list | tuple):
        return set().union(*map(_words, values))
    return {values} if isinstance(values, str) else set()
