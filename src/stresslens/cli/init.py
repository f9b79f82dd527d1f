"""`stresslens init`: writes a study to begin with."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from stresslens.cli.completion import preset_names, shipped_study_names
from stresslens.core.errors import ConfigError
from stresslens.core.spelling import closest


def init(
    folder: Annotated[Path, typer.Argument(help="Where to write; its folder `studies` is made.")] = Path(),
    study: Annotated[
        list[str] | None,
        typer.Option(
            "--study",
            help="A study that comes with stresslens (list them: `stresslens list studies`); default: "
            "quickstart.",
            show_default=False,
            autocompletion=shipped_study_names,
        ),
    ] = None,
    preset: Annotated[
        list[str] | None,
        typer.Option(
            "--preset",
            help="A preset from which a new study begins (list them: `stresslens list presets`).",
            show_default=False,
            autocompletion=preset_names,
        ),
    ] = None,
) -> None:
    """Write a study to begin with.

    It is copied to studies/NAME.yaml, with the plug-ins that it names; of a preset that file begins a
    study, and has the settings as a comment. The JSON schema of study files is written to
    studies/schema.json, with which an editor completes keys and marks mistakes. A file that is there
    already is kept.
    """
    from stresslens.config.json_schema import schema_text
    from stresslens.config.presets import no_preset, presets
    from stresslens.config.shipped_studies import shipped_studies

    known, begun = shipped_studies(), presets()
    names, of_presets = study or ([] if preset else ["quickstart"]), preset or []
    for name in names:
        if name not in known:
            raise ConfigError(f"no study is called {name!r}; {closest(name, list(known))}")
    for name in of_presets:
        if name not in begun:
            raise ConfigError(no_preset(name))
    home = folder / "studies"
    for name in names:
        source = known[name].file.parent
        for file in (Path(f"{name}.yaml"), *known[name].needs):
            _write(home / file, (source / file).read_bytes)
    for name in of_presets:
        _write(home / f"{name}.yaml", begun[name].study_text.encode)
    _write(home / "schema.json", lambda: schema_text().encode())
    first = f"cd {shlex.quote(str(folder))} && " if folder != Path() else ""
    typer.echo(f"next: {first}stresslens run studies/{[*names, *of_presets][0]}.yaml")


def _write(path: Path, content: Callable[[], bytes]) -> None:
    """Writes a new file and prints its name; one that is there already is kept. Raises ConfigError
    where the folder cannot be made."""
    from stresslens.core.files import write_bytes

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise ConfigError(f"{path.parent} cannot be made: a part of it is a file") from None
    if path.exists() or path.is_symlink():
        typer.echo(f"kept {path}, which is there already")
        return
    write_bytes(path, content())
    typer.echo(f"wrote {path}")
