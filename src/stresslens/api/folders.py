"""Folders of runs and studies, and data sets: opened, compared, reported, checked."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import ascii_lowercase
from typing import Any, TypeAlias

import numpy as np
from torch import Tensor, nn

from stresslens.api.arguments import path_of, plain_data
from stresslens.api.arrays import Labels
from stresslens.api.comparisons import AcrossDataSets, Comparison
from stresslens.api.progress_bar import Progress, shown
from stresslens.api.runs import Run
from stresslens.api.studies import Study, Variant, comparable, run_in
from stresslens.api.subjects import DataNow, ModelLike, RunLike, data_now, folder_of, run_of
from stresslens.api.words import public_call
from stresslens.comparison.cost_table import CostTable
from stresslens.comparison.data_sets import compare_data_sets
from stresslens.comparison.folders import (
    check_options,
    compare_corrected,
    compare_folders,
    compare_without_copies,
)
from stresslens.comparison.margins import MarginQuestion, NotWorseGate, margin_of
from stresslens.comparison.reported_accuracy import compare_reported
from stresslens.config.data_sets import loaded_data_set
from stresslens.config.function_files import with_names
from stresslens.config.run_names import folder_name
from stresslens.core.data import Data
from stresslens.core.errors import ConfigError
from stresslens.core.result_lists import Findings
from stresslens.core.run_folder import RunFolder
from stresslens.core.run_paths import runs_in
from stresslens.evaluation.accuracy_table import is_table_of_accuracies, read_accuracies
from stresslens.evaluation.data_check import chosen_findings, data_findings
from stresslens.evaluation.feature_duplicates import feature_finding, features_model
from stresslens.evaluation.paired_predictions import shared_images
from stresslens.evaluation.prediction_arrays import tables_of_arrays
from stresslens.evaluation.prediction_rows import is_prediction_file
from stresslens.evaluation.prediction_table import PredictionTable, read_predictions
from stresslens.evaluation.run_data import data_of
from stresslens.metrics.measures import NAMES, Measure, measure_of
from stresslens.report.page import write_report as write_page
from stresslens.study.recorded_runs import folders_to_compare, record_runs, temporary_runs, variant_named

Scores: TypeAlias = np.ndarray | Tensor | Mapping[str, Any]
"""Arrays of scores, or several by name."""
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


# long: what the caller gives is told apart, one kind after the other
@public_call()
def compare(
    *runs: Study | RunLike | Scores,
    labels: Labels | None = None,
    split: str = "test",
    difference: float | None = None,
    metric: str = "accuracy",
    costs: Mapping[str, Mapping[str, float]] | str | os.PathLike[str] | None = None,
    corrections: str | os.PathLike[str] | None = None,
    without_copies: bool = False,
    same_within: float | None = None,
    not_worse_than: Run | Variant | str | os.PathLike[str] | None = None,
    margin: float | None = None,
    out: str | os.PathLike[str] = "runs",
    trust: bool = False,
) -> Comparison:
    """Compares runs (…/seed-0) or variants (runs/STUDY/VARIANT) with the first, or the variants of a study
    by its contrasts. Each is a Run, a Study, or a folder; or all are files of predictions of other programs
    (a-seed0.csv, a-seed1.csv, b-seed0.csv, …), which become runs below `out`. Or all are arrays of scores
    (images, classes) or (seeds, images, classes), called a, b, …, or one dictionary of them by name, with
    the true `labels` (images,), which may also follow them: `compare(scores_a, scores_b, labels)`. Whole
    numbers (images,) or (seeds, images) are answers. Arrays leave no files. Of files with accuracies alone
    (columns variant, seed, accuracy and images) it says what can be said of them.

    Returns what `stresslens compare --json` prints: "verdicts" in words, "contrasts" with differences,
    intervals, p before and after Holm's correction, "plan", "costs", and "regressions". `difference` (a
    share, 0.01 for one point; else in the metric's unit) is the difference that the plans are for. `metric`
    is "accuracy", "balanced_accuracy", "macro_f1", "f1@CLASS", "auroc", "auroc@CLASS", "top5", "brier",
    "ece", "cross_entropy" (these three also as "brier_calibrated", …), "cost" with `costs`, {true class:
    {predicted class: cost}} or a file of that, or "robust@0.05" for runs that were attacked.

    With `corrections`, a CSV file as `find_label_errors` writes it, the predictions are scored by corrected
    labels, and "corrections" says which verdicts change; the data of the runs are read for that, their own
    plug-ins only with `trust`. `without_copies` leaves out images with a copy in an earlier split, and says
    the same.

    `same_within` (a share, 0.005 for half a point) asks of each contrast whether the two are the same within
    this margin: "same" of a contrast has the verdict. `not_worse_than` names the baseline ("first" the first
    given) than which no other may be worse by more than `margin`: "not_worse" of a contrast. `compare_across`
    compares over several data sets. Raises ConfigError for folders that cannot be compared, and DataError for
    corrections that do not belong to the data."""
    if len(runs) == 1 and isinstance(runs[0], list | tuple):
        runs = tuple(runs[0])
    tables = _tables_of(runs, labels)
    _check_comparison(runs, split, difference, metric)
    has_corrections = corrections is not None
    check_options(metric, costs=costs is not None, corrections=has_corrections, without_copies=without_copies)
    table = None if costs is None else _cost_table(costs)
    question = _question(same_within, not_worse_than, margin)
    if tables:
        if without_copies or corrections is not None:
            raise ConfigError("copies and corrections are of images, which arrays of scores do not have")
        if metric.startswith("robust@"):
            raise ConfigError(f"{metric} is of attacked runs, and arrays hold scores of images as they are")
        with temporary_runs(tables, split) as folders:
            found = compare_folders(
                folders, split=split, ask=difference, metric=metric, costs=table, question=question
            )
        return Comparison(found.as_json())
    files = [Path(each) for each in runs if isinstance(each, str | os.PathLike)]
    if len(files) == len(runs) and all(is_table_of_accuracies(file, {}) for file in files):
        given: dict[str, object] = {"corrections": corrections, "difference": difference, "costs": costs}
        given["without_copies"] = without_copies
        given |= {"margins": question != MarginQuestion(), "metric": metric != "accuracy"}
        if idle := [name for name, value in given.items() if value not in (None, False)]:
            raise ConfigError(f"{idle[0]} needs predictions, and the files have accuracies alone")
        return Comparison(compare_reported(read_accuracies(files)).as_json())
    paths = _paths_to_compare(runs, path_of(out, "out"), split)
    if without_copies:
        found = compare_without_copies(paths, split=split, ask=difference, question=question)
        return Comparison(found.as_json())
    if corrections is not None:
        file = path_of(corrections, "corrections")
        trust = trust or any(isinstance(each, Run | Study | Variant) and each.trust for each in runs)
        data = next((each.data_now for each in runs if isinstance(each, Run)), None)
        found = compare_corrected(
            paths, file, split=split, ask=difference, trust=trust, data=data, question=question
        )
        return Comparison(found.as_json())
    found = compare_folders(paths, split=split, ask=difference, metric=metric, costs=table, question=question)
    return Comparison(found.as_json())


@public_call()
def compare_across(
    *studies: Study | str | os.PathLike[str], split: str = "test", metric: str = "accuracy"
) -> AcrossDataSets:
    """Compares the variants of several studies, each on another data set, by the variants' own names: the
    difference on each data set, on average over data sets such as these, and on a new one of them.

    Returns what `stresslens compare --across --json` prints, by a random-effects meta-analysis (Paule &
    Mandel 1982; Student's t over the data sets); `plot` draws it. Raises ConfigError for fewer than two
    studies, and for studies without a pair of variants in common."""
    given = studies[0] if len(studies) == 1 and isinstance(studies[0], list | tuple) else studies
    if split not in ("test", "validation"):
        raise ConfigError(f"split is {split!r}; expected 'test' or 'validation'")
    if not isinstance(metric, str):
        raise ConfigError(f"metric is {metric!r}; expected 'accuracy', or 'robust@RADIUS'")
    paths = [folder_of(each, f"study {number} of compare_across") for number, each in enumerate(given, 1)]
    return AcrossDataSets(compare_data_sets(paths, split=split, metric=metric))


def _check_comparison(runs: Sequence[Any], split: Any, difference: Any, metric: Any) -> None:
    """Raises ConfigError for what `compare` cannot take."""
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


def _question(same_within: Any, baseline: Any, margin: Any) -> MarginQuestion:
    """What is asked about margins. Raises ConfigError."""
    if (baseline is None) != (margin is None):
        raise ConfigError("not_worse_than and margin belong together; margin=0.005 is half a point")
    same = None if same_within is None else margin_of(same_within, "same_within")
    if baseline is None:
        return MarginQuestion(same)
    named = (
        variant_named(baseline) if isinstance(baseline, str) else str(folder_of(baseline, "not_worse_than"))
    )
    return MarginQuestion(same, NotWorseGate(named, margin_of(margin, "margin")))


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


def _tables_of(runs: Sequence[Any], labels: Labels | None) -> dict[tuple[str, int], PredictionTable]:
    """The tables of arrays of scores; empty for runs."""
    if not any(isinstance(each, np.ndarray | Tensor | Mapping) for each in runs):
        if labels is not None:
            raise ConfigError("labels are those of arrays of scores; runs and files have their own")
        return {}
    if labels is None:
        *runs, labels = runs
    named = runs[0] if len(runs) == 1 and isinstance(runs[0], Mapping) else None
    if named is None and not all(isinstance(each, np.ndarray | Tensor) for each in runs):
        raise ConfigError("compare arrays with arrays, or runs with runs")
    scores = {folder_name(str(k)): v for k, v in named.items()} if named else dict(zip(ascii_lowercase, runs))
    if len(scores) < 2:
        raise ConfigError("compare needs the scores of two models or more, and then the labels")
    return tables_of_arrays(scores, labels)


def _paths_to_compare(runs: Sequence[Any], out: Path, split: str) -> list[Path]:
    """The folders of runs, variants or a study; for files of predictions those that are made of them."""
    files = [Path(each) for each in runs if isinstance(each, str | os.PathLike)]
    files = [file for file in files if is_prediction_file(file)]
    if files and len(files) < len(runs):
        raise ConfigError("compare files of predictions with files, or runs with runs")
    if files:
        return folders_to_compare(
            record_runs(shared_images(list(map(read_predictions, files))), out, split=split)
        )
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
