"""The plug-ins that a study can name without a file: built-in ones, and those of installed packages."""

from __future__ import annotations

from contextlib import suppress

from stresslens.config import registry
from stresslens.core.errors import ConfigError


def known_plugins(folder: str) -> dict[str, registry.Plugin]:
    """The functions of a folder's plug-ins by their names, sorted. One of an installed package that
    cannot be imported is left out."""
    found = {}
    for name in registry.all_names(folder):
        with suppress(ConfigError):
            found[name] = registry.plugin(folder, name)
    return found


def must_be_told(folder: str, name: str) -> bool:
    """Whether a built-in plug-in has an option without a default, such as which one of a library it is."""
    options = registry.options_of(registry.plugin(folder, name)).values()
    return any(option.default is option.empty for option in options)
