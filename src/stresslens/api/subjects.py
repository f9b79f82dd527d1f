"""What a public function is about: a module, a run, or the folder of a run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, TypeAlias

from torch import nn

from stresslens.api.runs import Run
from stresslens.api.studies import Study, run_in
from stresslens.core.errors import ConfigError
from stresslens.core.run_folder import RunFolder
from stresslens.core.run_paths import runs_in

RunLike: TypeAlias = Run | Study | str | os.PathLike[str]
"""A run, the folder of a run, or a study or a variant that has a single run."""
ModelLike: TypeAlias = nn.Module | RunLike
"""A module, or a run that has one."""


def is_path(value: Any) -> bool:
    return isinstance(value, str | os.PathLike)


def folder_of(value: Any, what: str) -> Path:
    """The folder that a Run, a Study or a path stands for. Raises ConfigError for anything else."""
    if not is_path(value):
        raise ConfigError(f"{what} is {_a(value)}; expected a run (of sl.train or sl.open) or its folder")
    return Path(value)


def run_of(value: Any, *, what: str = "run", trust: bool = False, module: nn.Module | None = None) -> Run:
    """The run that a Run, a Study with a single run or a folder stands for. A folder is opened with
    `trust` and `module`; those that are given count for a Run too.

    Raises ConfigError where it is no run, or several."""
    if isinstance(value, Run):
        return Run(value.folder, value.record, module or value.module, value.trust or trust)
    folder = folder_of(value, what)
    trust = trust or (isinstance(value, Study) and value.trust)
    return run_in(RunFolder(_only_run(folder, what)), trust=trust, module=module)


def model_of(
    value: Any, *, what: str = "model", trust: bool = False, module: nn.Module | None = None
) -> nn.Module:
    """The module itself, or the trained model of the run that the value stands for. Raises ConfigError
    for anything else."""
    if isinstance(value, nn.Module):
        return value
    if not is_path(value):
        raise ConfigError(f"{what} is {_a(value)}; {_expected(value)}")
    return run_of(value, what=what, trust=trust, module=module).model()


def _only_run(folder: Path, what: str) -> Path:
    if (folder / "record.json").is_file():
        return folder
    runs = runs_in(folder)
    if len(runs) == 1:
        return runs[0]
    if runs:
        shown = ", ".join(map(str, runs[:5])) + (f" and {len(runs) - 5} more" if len(runs) > 5 else "")
        raise ConfigError(f"{what} is {folder}, which holds {len(runs)} runs: {shown}; give one of them")
    if not folder.exists():
        raise ConfigError(f"{what} is {str(folder)!r}, and there is no such folder; expected a run's folder")
    raise ConfigError(f"{what} is {str(folder)!r}, which is not the folder of a run (…/seed-0)")


def _expected(value: Any) -> str:
    if hasattr(value, "fit") and hasattr(value, "predict"):
        return (
            "expected a torch.nn.Module from images to logits, a run or its folder; "
            "an estimator is trained by its name: sl.train('knn', data)"
        )
    if isinstance(value, type) and issubclass(value, nn.Module):
        return f"that is a class; make a module of it: {value.__name__}(…)"
    return (
        "expected a torch.nn.Module from images (N, C, H, W) in [0, 1] to logits (N, classes), "
        "a run (of sl.train or sl.open) or its folder"
    )


def _a(value: Any) -> str:
    name = type(value).__name__
    return "None" if value is None else f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"
