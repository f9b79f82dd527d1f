"""Candidates for the shell's completion: plug-ins, runs, studies and words.

They come from the names of files and installed packages, so a completion imports neither torch nor numpy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import typer

from stresslens.core.run_paths import runs_in

Complete = Callable[[str], list[str]]
"""Takes the unfinished word; candidates that do not begin with it are dropped by typer."""
_PLUGINS = Path(__file__).parents[1] / "plugins"


def words(*candidates: str) -> Complete:
    def complete(incomplete: str) -> list[str]:
        return list(candidates)

    return complete


def plugins_of(*folders: str, more: Iterable[str] = ()) -> Complete:
    """The names of the plug-ins of some folders, and `more` words."""

    def complete(incomplete: str) -> list[str]:
        return [*more, *(name for folder in folders for name in _names(folder))]

    return complete


def plugin_kinds(incomplete: str) -> list[str]:
    """What `stresslens list` can list."""
    folders = sorted(path.name for path in _PLUGINS.iterdir() if (path / "__init__.py").is_file())
    return [*folders, "runs", "studies"]


def plugins_of_kind(ctx: typer.Context, incomplete: str) -> list[str]:
    """The plug-ins of the kind that was typed before."""
    return _names(str(ctx.params.get("kind")))


def runs(incomplete: str) -> list[str]:
    """The folders of the runs below ./runs, or below the folder that was begun."""
    roots = (Path("runs"), Path(incomplete), Path(incomplete).parent)
    return sorted({str(run) for root in roots for run in runs_in(root)})


def runs_and_studies(incomplete: str) -> list[str]:
    """The folders of runs, of their variants and of their studies."""
    found = map(Path, runs(incomplete))
    return sorted({str(path) for run in found for path in (run, run.parent, run.parent.parent)})


def study_files(incomplete: str) -> list[str]:
    """The YAML files of this folder, of ./studies, and of the folder that was begun."""
    roots = (Path(), Path("studies"), Path(incomplete), Path(incomplete).parent)
    return sorted({str(file) for root in roots for file in root.glob("*.y*ml")})


def shipped_study_names(incomplete: str) -> list[str]:
    """The studies that come with stresslens."""
    from stresslens.config.shipped_studies import shipped_studies

    return list(shipped_studies())


def preset_names(incomplete: str) -> list[str]:
    """The presets that come with stresslens."""
    from stresslens.config.presets import presets

    return list(presets())


def _names(folder: str) -> list[str]:
    """The names of the built-in plug-ins and of those that installed packages bring, as
    `registry.all_names` gives them; that module imports torch."""
    from stresslens.config.installed_plugins import installed_plugins

    files = (_PLUGINS / folder).glob("*.py")
    return sorted(
        {file.stem for file in files if not file.stem.startswith("_")} | {*installed_plugins(folder)}
    )
