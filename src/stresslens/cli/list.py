"""`stresslens list`: lists plug-ins, the models of the zoos, runs, or studies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stresslens.cli.completion import plugin_kinds, plugins_of_kind
from stresslens.cli.options import Json, Out
from stresslens.cli.terminal import plugin_help, print_json, print_runs, print_table
from stresslens.core.errors import ConfigError
from stresslens.core.spelling import closest

if TYPE_CHECKING:
    from stresslens.config.catalogues import Catalogue

ROWS = 30
"""Most models of a zoo in a table."""


def list_plugins(
    kind: Annotated[
        str,
        typer.Argument(
            help="datasets, models, losses, …; runs; or studies and presets, which come with stresslens.",
            autocompletion=plugin_kinds,
        ),
    ] = "",
    pattern: Annotated[
        str,
        typer.Argument(
            help="Only names like this: 'resnet*', or a part of the name. Runs: 'quick*' for one folder of "
            "the path, 'quick*/adam' for several. Models are also searched in torchvision, timm and "
            "open_clip.",
            show_default=False,
            autocompletion=plugins_of_kind,
        ),
    ] = "",
    out: Out = Path("runs"),
    as_json: Json = False,
) -> None:
    """List plug-ins, models, runs or studies.

    Plug-ins are listed with their options, and models of torchvision, timm and open_clip with their
    published weights and how to write them in a study. Nothing is downloaded.
    """
    from stresslens.config import registry
    from stresslens.config.catalogues import matches, search_catalogues

    if kind == "runs":
        print_runs(out, as_json, lambda path: _matches_part(pattern, path, out))
        return
    if kind == "studies":
        _print_studies(pattern, as_json)
        return
    if kind == "presets":
        _print_presets(pattern, as_json)
        return
    kinds = [kind] if kind else list(registry.VOCABULARY)
    if kind and kind not in registry.VOCABULARY:
        known = [*registry.VOCABULARY, "runs", "studies", "presets"]
        raise ConfigError(f"no kind is called {kind!r}; {closest(kind, known)}")
    found = {
        folder: {name: _help(folder, name) for name in registry.all_names(folder) if matches(pattern, name)}
        for folder in kinds
    }
    zoos = search_catalogues(pattern) if kind == "models" and pattern else []
    if as_json:
        print_json(found | ({"zoos": {each.plugin: _as_json(each) for each in zoos}} if zoos else {}))
        return
    _print_plugins(found, pattern)
    _print_catalogues(zoos, pattern)
    if kind == "models" and not pattern:
        typer.echo(
            f"search the models of {', '.join(registry.catalogues())}: stresslens list models 'resnet*'"
        )


def _matches_part(pattern: str, run: str, out: Path) -> bool:
    """Whether a pattern matches the path of a run, or one or several folders of it in a row, below
    `out`."""
    from stresslens.config.catalogues import matches

    parts = Path(run).relative_to(out).parts
    ends = range(1, len(parts) + 1)
    rows = ["/".join(parts[start:end]) for end in ends for start in range(end)]
    return any(matches(pattern, each) for each in [run, *rows])


def _print_plugins(found: Mapping[str, Mapping[str, Mapping[str, str]]], pattern: str) -> None:
    """Print the plug-ins of each folder, with the package that brings them unless that is stresslens."""
    from stresslens.config import registry

    for folder, plugins in found.items():
        if plugins:
            rows = [
                [n, d["options"], f"{d['help']} (of {d['package']})" if "package" in d else d["help"]]
                for n, d in plugins.items()
            ]
            print_table([folder, "options", "what it is"], rows, folder)
        elif pattern:
            typer.echo(f"{folder}: none of {len(registry.all_names(folder))} is like {pattern!r}")


def _print_catalogues(catalogues: Sequence[Catalogue], pattern: str) -> None:
    """Print what was found in each zoo, and how to write it in a study."""
    for zoo in catalogues:
        if zoo.missing:
            typer.echo(f"{zoo.plugin}: not searched; {zoo.missing}")
        elif not zoo.found:
            typer.echo(f"{zoo.plugin}: none of {zoo.size:,} is like {pattern!r}")
        else:
            rows = [[model.name, _listed(list(model.weights)), model.in_study] for model in zoo.found[:ROWS]]
            title = f"{zoo.plugin}: {len(zoo.found):,} of {zoo.size:,}"
            print_table(["model", "published weights", "in a study, model:"], rows, title)
            if len(zoo.found) > ROWS:
                more = f"{len(zoo.found) - ROWS:,} more of {zoo.plugin}"
                typer.echo(f"{more}; narrow the pattern, or list all with --json")


def _listed(weights: list[str]) -> str:
    """The published weights in a few words."""
    if not weights:
        return "none"
    names = ", ".join(filter(None, weights[:2])) or "yes"
    return f"{names}, and {len(weights) - 2} more" if len(weights) > 2 else names


def _as_json(zoo: Catalogue) -> dict[str, object]:
    models = {model.name: {"weights": dict(model.weights), "in_study": model.in_study} for model in zoo.found}
    return {"size": zoo.size, "found": models} | ({"missing": zoo.missing} if zoo.missing else {})


def _print_studies(pattern: str, as_json: bool) -> None:
    """Print the studies that come with stresslens, with their durations and questions."""
    from stresslens.config.catalogues import matches
    from stresslens.config.shipped_studies import shipped_studies

    studies = {name: each for name, each in shipped_studies().items() if matches(pattern, name)}
    if as_json:
        print_json({n: {"duration": each.duration, "purpose": each.purpose} for n, each in studies.items()})
        return
    rows = [[name, each.duration, each.purpose] for name, each in studies.items()]
    print_table(["study", "takes", "what it is about"], rows, "studies")
    typer.echo("copy one with: stresslens init --study NAME")


def _print_presets(pattern: str, as_json: bool) -> None:
    """Print the presets, with their settings."""
    from stresslens.config.catalogues import matches
    from stresslens.config.presets import presets

    found = {name: each for name, each in presets().items() if matches(pattern, name)}
    if as_json:
        print_json({n: {"purpose": each.purpose, "settings": each.settings} for n, each in found.items()})
        return
    for name, each in found.items():
        typer.echo(f"preset: {name}\n# {each.purpose}\n{each.text}\n")
    if not found:
        typer.echo(f"presets: none of {len(presets())} is like {pattern!r}")
        return
    typer.echo("# begin a study from one with: stresslens init --preset NAME")


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
