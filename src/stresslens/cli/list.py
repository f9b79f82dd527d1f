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
    found = {folder: {name: plugin_help(folder, name) for name in registry.names(folder)} for folder in kinds}
    if as_json:
        print_json(found)
        return
    for folder, plugins in found.items():
        print_table(
            [folder, "options", "what it is"],
            [[n, d["options"], d["help"]] for n, d in plugins.items()],
            folder,
        )
