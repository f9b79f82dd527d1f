"""The models that model plug-ins build by name, from the libraries behind them: searched without a
network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from stresslens.config import registry
from stresslens.config.yaml_source import yaml_text
from stresslens.core.errors import ConfigError


@dataclass(frozen=True)
class CatalogueModel:
    """A model of a catalogue. `weights` are the names of its published weights, the default first,
    with the options that select them."""

    plugin: str
    name: str
    weights: Mapping[str, Mapping[str, Any]]

    @property
    def in_study(self) -> str:
        """The value of `model:` in a study, with the default of the weights if there are any."""
        options = next(iter(self.weights.values()), {"name": self.name})
        return yaml_text({self.plugin: dict(options)}, on_one_line=True)


@dataclass(frozen=True)
class Catalogue:
    """The models of one plug-in that match a pattern. `size` is the number of all; `missing` says why
    there are none where the library is not installed."""

    plugin: str
    size: int = 0
    found: list[CatalogueModel] = field(default_factory=list)
    missing: str = ""


def matches(pattern: str, name: str) -> bool:
    """Whether a name matches a pattern with * and ?; a pattern without them is a part of the name.
    Upper and lower case are the same."""
    pattern = pattern.lower()
    if not any(sign in pattern for sign in "*?["):
        pattern = f"*{pattern}*"
    return fnmatchcase(name.lower(), pattern)


def search_catalogues(pattern: str) -> list[Catalogue]:
    """What matches in the catalogue of each model plug-in that has one."""
    results = []
    for plugin, catalogue in registry.catalogues().items():
        try:
            models = catalogue()
        except ConfigError as error:
            results.append(Catalogue(plugin, missing=str(error)))
            continue
        found = [
            CatalogueModel(plugin, name, models[name]) for name in sorted(models) if matches(pattern, name)
        ]
        results.append(Catalogue(plugin, len(models), found))
    return results
