"""`stresslens list`: lists plug-ins, or runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stresslens.cli.options import Json, Out
from stresslens.cli.terminal import plugin_help, print_json, print_runs, print_table
from stresslens.core.errors import ConfigError
from stresslens.core.spelling import closest


def list_plugins(
    kind: Annotated[str, typer.Argument(help="datasets, models, losses, …, or runs.")] = "",
    out: Out = Path("runs"),
    as_json: Json = False,
) -> None:
    """List plug-ins with options, or runs."""
    from stresslens.config import registry

    if kind == "runs":
        print_runs(out, as_json)
        return
    kinds = [kind] if kind else list(registry.VOCABULARY)
    if kind and kind not in registry.VOCABULARY:
        raise ConfigError(f"no kind is called {kind!r}; {closest(kind, [*registry.VOCABULARY, 'runs'])}")
    found = {folder: {name: _help(folder, name) for name in registry.all_names(folder)} for folder in kinds}
    if as_json:
        print_json(found)
        return
    for folder, plugins in found.items():
        print_table(
            [folder, "options", "what it is"],
            [
                [n, d["options"], f"{d['help']} (of {d['package']})" if "package" in d else d["help"]]
                for n, d in plugins.items()
            ],
            folder,
        )


def _help(folder: str, name: str) -> dict[str, str]:
    """A plug-in's options and help, and the package that brings it, unless that is stresslens."""
    from stresslens.config import registry
    from stresslens.config.installed_plugins import installed_plugins

    if name in registry.names(folder):
        return plugin_help(folder, name)
    package = ", ".join(plugin.origin for plugin in installed_plugins(folder)[name])
    try:
        return plugin_help(folder, name) | {"package": package}
    except ConfigError as error:
        return {"options": "", "help": f"It cannot be used: {error}", "package": package}
