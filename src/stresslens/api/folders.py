"""Folders of runs and studies, and data sets: opened, compared, reported, checked."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from stresslens.api.comparisons import Comparison
from stresslens.api.runs import Run
from stresslens.api.studies import Study, run_in
from stresslens.api.subjects import RunLike, folder_of, run_of
from stresslens.comparison.folders import compare_folders
from stresslens.config import registry
from stresslens.core.data import Data
from stresslens.core.errors import ConfigError
from stresslens.core.result_lists import Findings
from stresslens.core.run_folder import RunFolder
from stresslens.core.run_paths import runs_in
from stresslens.core.torch_settings import initial_settings
from stresslens.evaluation.data_check import data_findings
from stresslens.report.page import write_report as _write_report


def compare(
    *runs: Study | RunLike, split: str = "test", difference: float | None = None, metric: str = "accuracy"
) -> Comparison:
    """Compares runs (…/seed-0) or variants (runs/STUDY/VARIANT) with the first, or the variants of a study
    by its contrasts.

    Returns what `stresslens compare --json` prints: "verdicts" in words, "contrasts" with differences,
    intervals, p before and after Holm's correction, "plan", "costs", and "regressions". `difference` (a
    share, 0.01 for one point) is the difference that the plans are for; `metric` is "accuracy", or
    "robust@0.05" for runs that were attacked. Raises ConfigError for folders that cannot be compared."""
    if not runs:
        raise ConfigError("compare needs two runs or variants, or one study")
    paths = [folder_of(each, f"argument {number} of compare") for number, each in enumerate(runs, 1)]
    return Comparison(compare_folders(paths, split=split, ask=difference, metric=metric).as_json())


def write_report(folder: Study | RunLike) -> Path:
    """Writes report.html of a study's or a run's folder again, from its files alone, and returns its
    path."""
    return _write_report(folder_of(folder, "folder"))


@initial_settings()
def check_data(data: str | Mapping[str, Any] | Data) -> Findings:
    """Finds duplicates, leaks between splits, wrong or rare labels, and shortcuts. It needs no model.

    `data` is as in `train`. The findings on the same images and labels are kept in the cache folder. Raises
    ConfigError and DataError."""
    found = data_findings(
        data.uncached() if isinstance(data, Data) else registry.resolve("datasets", data, base=Path.cwd())()
    )
    return Findings(found)


def open(
    folder: str | os.PathLike[str], *, trust: bool = False, module: nn.Module | None = None
) -> Run | Study:
    """The run or the study in a folder.

    Plug-ins that are not built in are executed only with `trust`. A run that was trained on your own module
    needs it as `module` before its model is opened. Raises ConfigError for any other folder."""
    if isinstance(folder, Run | Study):
        return folder
    path = folder_of(folder, "folder")
    runs = runs_in(path)
    if runs == [path] or (path / "record.json").is_file():
        return run_in(RunFolder(path), trust=trust, module=module)
    if (path / "study.json").is_file() or any(path.glob("*/seed-*/record.json")):
        return Study(path, trust=trust)
    return run_of(path, what="folder", trust=trust, module=module)
