"""Arguments that are folders of runs, or pictures: neither is ever taken for the other."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from stresslens.core.errors import ConfigError
from stresslens.core.run_paths import runs_in
from stresslens.core.text import enumeration


def checked_run(run: Path) -> Path:
    """The folder of a run, given itself or as the only run in a variant's folder. Raises ConfigError for
    another path, and says what it is."""
    if (runs := runs_in(run)) == [run] or os.path.isfile(run / "record.json"):
        return run
    if len(runs) == 1 and runs[0].parent == run:
        return runs[0]
    if runs:
        raise ConfigError(
            f"{run} is not the folder of a run, but holds {enumeration(runs)}; give one of them"
        )
    if not os.path.exists(run):
        raise ConfigError(f"there is no {run}; list the runs that there are with `stresslens list runs`")
    raise ConfigError(
        f"{run} is not the folder of a run (…/seed-0), which comes first, before files and images; "
        "list them with `stresslens list runs`"
    )


def checked_run_or_file(run: Path) -> Path:
    """As `checked_run`; or a file of predictions, or of a model."""
    from stresslens.core.model_suffixes import is_model_file
    from stresslens.evaluation.prediction_rows import is_prediction_file

    return run if is_prediction_file(run) or is_model_file(run) else checked_run(run)


def runs_then_pictures(paths: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """The runs and exported models at the beginning, of which there is one at least, and the pictures
    behind them. Raises ConfigError for a run among the pictures, and where there are no pictures."""
    first, *rest = paths
    runs = [first]
    while rest and (_is_export(rest[0]) or runs_in(rest[0])):
        runs.append(rest.pop(0))
    runs = [path if _is_export(path) else checked_run(path) for path in runs]
    check_pictures(rest)
    if not rest:
        raise ConfigError(
            f"no image is given behind {enumeration(runs)}; give image files, or folders of them"
        )
    return runs, rest


def _is_export(path: Path) -> bool:
    """Whether `stresslens export` wrote the file or folder, by its name."""
    is_file = path.suffix in (".onnx", ".pt2", ".html") or path.name == "model.safetensors"
    return is_file or os.path.isfile(path / "export.json")


def check_pictures(pictures: Sequence[Path], one: str = "") -> None:
    """Raises ConfigError where the folder of a run is given in place of pictures; `one` is the command
    for one run."""
    if found := [path for path in pictures if runs_in(path)]:
        instead = f"for one run: {one}" if one else "the runs come first, then the images"
        raise ConfigError(f"{enumeration(found)}: the folder of a run is never read as images; {instead}")


def check_one_run(name: str, words: Sequence[str], more: Sequence[str]) -> None:
    """Raises ConfigError for the words `more` that a command has no argument for; the shell may have
    made several runs of one pattern."""
    if more and all(runs_in(Path(word)) for word in more):
        kept = list(words)[::-1]
        for word in more:
            kept.remove(word)
        one = shlex.join(["stresslens", name, *kept[::-1]])
        raise ConfigError(
            f"{name} takes one run, and is given also {enumeration(more)}; for the first: {one}"
        )
    if more:
        raise ConfigError(f"{name} takes no further argument: {' '.join(more)}; see `stresslens help {name}`")
