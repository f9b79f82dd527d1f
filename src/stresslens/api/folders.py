"""Folders of runs and studies, and data sets: opened, compared, reported, checked."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from stresslens.api.arguments import path_of, plain_data
from stresslens.api.comparisons import Comparison
from stresslens.api.progress_bar import Progress, shown
from stresslens.api.runs import Run
from stresslens.api.studies import Study, Variant, comparable, run_in
from stresslens.api.subjects import DataNow, ModelLike, RunLike, data_now, folder_of, run_of
from stresslens.api.words import public_call
from stresslens.comparison.cost_table import CostTable
from stresslens.comparison.folders import compare_corrected, compare_folders, compare_without_copies
from stresslens.config.data_sets import loaded_data_set
from stresslens.config.function_files import with_names
from stresslens.core.data import Data
from stresslens.core.errors import ConfigError
from stresslens.core.result_lists import Findings
from stresslens.core.run_folder import RunFolder
from stresslens.core.run_paths import runs_in
from stresslens.evaluation.data_check import chosen_findings, data_findings
from stresslens.evaluation.feature_duplicates import feature_finding, features_model
from stresslens.evaluation.prediction_rows import is_prediction_file
from stresslens.evaluation.prediction_table import read_predictions
from stresslens.evaluation.run_data import data_of
from stresslens.metrics.measures import NAMES, Measure, measure_of
from stresslens.report.page import write_report as write_page
from stresslens.study.recorded_runs import folders_to_compare, record_runs

OF_RUN = "module and data are those of a run: open its run"


@public_call()
def open(
    folder: RunLike,
    *,
    trust: bool = False,
    module: nn.Module | None = None,
    data: DataNow = None,
) -> Run | Study | Variant:
    """The run or the study in a folder: a Run for that of a run, or of a variant with one seed, a Variant for
    that of a variant with several seeds, as `study["NAME"]` gives it, and a Study for that of a study, or a
    folder that holds one study.

    Plug-ins that are not built in are executed only with `trust`. A run that was trained on your own module
    needs it as `module` before its model is opened; `data` says where its data lie now, or holds them. Raises
    ConfigError for any other folder."""
    if isinstance(folder, Run):
        return run_of(folder, trust=trust, module=module, data=data)
    path = folder_of(folder, "folder")
    trust = trust or (isinstance(folder, Study | Variant) and folder.trust)
    if (path / "record.json").is_file():
        return run_in(RunFolder(path), trust=trust, module=module, data=data_now(data))
    studies = [path] if _is_study(path) else sorted(each for each in path.glob("*/") if _is_study(each))
    if len(studies) > 1:
        names = ", ".join(each.name for each in studies)
        raise ConfigError(f"{path} holds the studies {names}; give the folder of one of them")
    seeds, of_run = runs_in(path), module is not None or data is not None
    if studies and (studies == [path] or len(seeds) != 1):
        if of_run:
            raise ConfigError(f"{studies[0]} is a study; {OF_RUN}")
        return Study(studies[0], trust=trust)
    if not studies and len(seeds) > 1:
        if of_run:
            raise ConfigError(f"{path} has several seeds; {OF_RUN}")
        folder_of_variant = seeds[0].resolve().parent
        study = path.parent if path.name == folder_of_variant.name else folder_of_variant.parent
        return Study(study, trust=trust)[folder_of_variant.name]
    return run_of(path, what="folder", trust=trust, module=module, data=data)


def _is_study(folder: Path) -> bool:
    return (folder / "study.json").is_file() or any(folder.glob("*/seed-*/record.json"))


@public_call()
def compare(
    *runs: Study | RunLike,
    split: str = "test",
    difference: float | None = None,
    metric: str = "accuracy",
    costs: Mapping[str, Mapping[str, float]] | str | os.PathLike[str] | None = None,
    corrections: str | os.PathLike[str] | None = None,
    without_copies: bool = False,
    out: str | os.PathLike[str] = "runs",
    trust: bool = False,
) -> Comparison:
    """Compares runs (…/seed-0) or variants (runs/STUDY/VARIANT) with the first, or the variants of a study
    by its contrasts. Each is a Run, a Study, or a folder; or all are files of predictions of other programs
    (a-seed0.csv, a-seed1.csv, b-seed0.csv, …), which become runs below `out`.

    Returns what `stresslens compare --json` prints: "verdicts" in words, "contrasts" with differences,
    intervals, p before and after Holm's correction, "plan", "costs", and "regressions". `difference` (a
    share, 0.01 for one point; else in the metric's unit) is the difference that the plans are for. `metric`
    is "accuracy", "balanced_accuracy", "macro_f1", "f1@CLASS", "auroc", "auroc@CLASS", "top5", "brier",
    "ece", "cross_entropy" (these three also as "brier_calibrated", …), "cost" with `costs`, {true class:
    {predicted class: cost}} or a file of that, or "robust@0.05" for runs that were attacked.

    With `corrections`, a CSV file as `find_label_errors` writes it, the predictions are scored by corrected
    labels, and "corrections" says which verdicts change; the data of the runs are read for that, their own
    plug-ins only with `trust`. `without_copies` leaves out images with a copy in an earlier split, and says
    the same. Raises ConfigError for folders that cannot be compared, and DataError for corrections that do
    not belong to the data."""
    if len(runs) == 1 and isinstance(runs[0], list | tuple):
        runs = tuple(runs[0])
    if not runs:
        raise ConfigError("compare needs two runs or two variants, or one study")
    for number, each in enumerate(runs, 1):
        if isinstance(each, nn.Module):
            raise ConfigError(
                f"run {number} of compare is a module, which has no predictions to compare; give the run "
                "that it was trained in (of sl.train or sl.open)"
            )
    if split not in ("test", "validation"):
        raise ConfigError(f"split is {split!r}; expected 'test' or 'validation'")
    if not isinstance(metric, str):
        raise ConfigError(f"metric is {metric!r}; expected {', '.join(NAMES)}, or robust@RADIUS")
    _check_difference(difference, measure_of(metric))
    table = None if costs is None else _cost_table(costs)
    if without_copies and (corrections is not None or metric != "accuracy"):
        raise ConfigError("without_copies is for the accuracy alone; leave out corrections and metric")
    if corrections is not None and metric != "accuracy":
        raise ConfigError(f"metric is {metric!r}; labels are corrected for the accuracy only")
    paths = _paths_to_compare(runs, path_of(out, "out"), split)
    if without_copies:
        return Comparison(compare_without_copies(paths, split=split, ask=difference).as_json())
    if corrections is not None:
        file = path_of(corrections, "corrections")
        trust = trust or any(isinstance(each, Run | Study | Variant) and each.trust for each in runs)
        data = next((each.data_now for each in runs if isinstance(each, Run)), None)
        compared = compare_corrected(paths, file, split=split, ask=difference, trust=trust, data=data)
        return Comparison(compared.as_json())
    compared = compare_folders(paths, split=split, ask=difference, metric=metric, costs=table)
    return Comparison(compared.as_json())


def _cost_table(costs: Any) -> CostTable:
    return CostTable.of(costs) if isinstance(costs, Mapping) else CostTable.read(path_of(costs, "costs"))


def _check_difference(difference: Any, measure: Measure) -> None:
    if difference is None:
        return
    number = isinstance(difference, int | float) and not isinstance(difference, bool)
    if measure.is_share and not (number and 0 < difference <= 1):
        raise ConfigError(f"difference is {difference!r}; expected a share above 0, at most 1")
    if not (number and 0 < difference < math.inf):
        raise ConfigError(f"difference is {difference!r}; expected a number above 0, in {measure.words}")


def _paths_to_compare(runs: Sequence[Any], out: Path, split: str) -> list[Path]:
    """The folders of runs, variants or a study; for files of predictions those that are made of them."""
    files = [Path(each) for each in runs if isinstance(each, str | os.PathLike)]
    files = [file for file in files if is_prediction_file(file)]
    if files and len(files) < len(runs):
        raise ConfigError("compare files of predictions with files, or runs with runs")
    if files:
        return folders_to_compare(record_runs(list(map(read_predictions, files)), out, split=split))
    paths = [folder_of(each, f"run {number} of compare") for number, each in enumerate(runs, 1)]
    return comparable(paths[0]) if len(paths) == 1 else paths


@public_call()
def write_report(folder: Study | RunLike) -> Path:
    """Writes report.html of a study or of a run again, from its files alone, and returns its path."""
    if isinstance(folder, nn.Module):
        raise ConfigError("folder is a module, which has no report; give a run, a study, or its folder")
    return write_page(folder_of(folder, "folder"))


@public_call()
def check_data(
    data: str | os.PathLike[str] | Mapping[str, Any] | Data | Run,
    *,
    checks: Sequence[Any] | None = None,
    features: ModelLike | None = None,
    progress: Progress = True,
) -> Findings:
    """Finds duplicates, leaks between splits, bad pictures, rare classes, and shortcuts. It needs no model.

    `data` is as in `train`, or a run, whose data are checked. `checks` are the only checks to make: names
    ("blurred_images"), `{name: options}`, functions, or "file.py:function". With `features`, a run or a
    module, copies in other splits are looked for by its features too. The findings of all checks on the
    same images and labels are kept in the cache folder. `progress` is as in `train`. Raises ConfigError
    and DataError."""
    with shown(progress):
        found = _data_to_check(data)
        if checks is None:
            findings = data_findings(found)
        else:
            findings = chosen_findings(found, with_names(list(checks), None, "checks"), base=Path.cwd())
        if isinstance(features, nn.Module):
            findings.append(feature_finding(found, features, type(features).__name__))
        elif features is not None:
            run = run_of(features, what="features")
            network = features_model(run.folder, found, trust=run.trust)
            findings.append(feature_finding(found, network, str(run.folder)))
        return Findings(findings)


def _data_to_check(data: Any) -> Data:
    if isinstance(data, Data):
        return data.uncached()
    run = _run_with_data(data)
    if run is not None:
        return data_of(RunFolder(run.folder), trust=run.trust, data=run.data_now)
    return loaded_data_set(plain_data(data), base=Path.cwd())


def _run_with_data(data: Any) -> Run | None:
    """The run whose data are meant; None for data."""
    if isinstance(data, Run | Study):
        return run_of(data, what="data")
    is_run = isinstance(data, str | os.PathLike) and bool(runs_in(Path(data)))
    return run_of(data, what="data") if is_run else None
