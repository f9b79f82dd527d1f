"""Training from Python: a whole study, or one model."""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

from torch import nn

from stresslens.api.arguments import (
    check_whole_number,
    path_of,
    trackers_of,
    views_of,
)
from stresslens.api.progress_bar import LINES, Display, Epochs, Progress, shown
from stresslens.api.runs import Run
from stresslens.api.studies import Study
from stresslens.api.training_task import training_task
from stresslens.api.words import public_call
from stresslens.config import study_file
from stresslens.config.ablation import AblationRequest, request_of
from stresslens.config.ensembles import number_of_runs
from stresslens.config.function_files import with_names
from stresslens.config.recorded_study import read_recorded_study
from stresslens.core.copies import copied
from stresslens.core.data import Data
from stresslens.core.errors import ConfigError, Notice
from stresslens.core.tracking import Tracker
from stresslens.evaluation.record import RunRecord
from stresslens.study import pipeline, stages
from stresslens.study.dictionary import study_from
from stresslens.study.failures import succeeded
from stresslens.study.longer_runs import go_on
from stresslens.study.recorded_runs import record_study, tables_of
from stresslens.training.autotune import autotune
from stresslens.training.loop import Show
from stresslens.training.task import Task

Track: TypeAlias = str | Mapping[str, Any] | Tracker | Any
"""A tracker: a plug-in by name, a function of an entry, or an object with `log(entry)` and
`close()`."""


StudyOfUser: TypeAlias = str | os.PathLike[str] | Mapping[str, Any]
"""A study file, or a dictionary of its keys."""


@public_call()
def run(
    study: StudyOfUser,
    *overrides: str,
    out: str | os.PathLike[str] = "runs",
    jobs: int | None = None,
    executor: str | None = None,
    track: Track | Sequence[Track] = (),
    progress: Progress = True,
) -> Study:
    """Runs a study and returns it; `report.html` is in its folder, `out/<study>`.

    `study` is a study file, or a dictionary of its keys; without the key `study` that is called like its
    data. `overrides` are `key.path=value`. A dictionary with other settings than the runs in the folder
    makes runs beside them, which are named by what differs. `jobs` runs are carried out at a time (default
    one; on Ray one a core); `executor` is "local" or "ray", by default the study's own. `track` and
    `progress` are as in `train`. Raises ConfigError with every mistake of the study, DataError,
    TrainingDiverged, and Stopped after a signal."""
    return _carried_out(study, overrides, out, jobs, executor, track, progress)


@public_call()
def ablate(
    study: StudyOfUser,
    *overrides: str,
    leave_out: bool = False,
    add_in: bool = False,
    ingredients: str | Sequence[str] = (),
    variant: str | None = None,
    repeats: int | None = None,
    out: str | os.PathLike[str] = "runs",
    jobs: int | None = None,
    executor: str | None = None,
    track: Track | Sequence[Track] = (),
    progress: Progress = True,
) -> Study:
    """Measures what each ingredient of a study's recipe is worth, and returns the study; its `ablation` has
    the table.

    The key `ablate` of the study names the ingredients; without it they are the settings that differ from
    their defaults and can be taken away. Each is left out of the full recipe and added to the bare one; with
    `leave_out` or `add_in` only that. `ingredients` are those that are asked about, the others are in every
    run. Of a study with `runs`, `variant` is the one whose recipe is meant. `repeats` seeds, by default those
    of the study, else 3. Everything else is as in `run`."""
    check_whole_number("repeats", repeats)
    named = [ingredients] if isinstance(ingredients, str) else list(ingredients)
    request = request_of(leave_out, add_in, named, variant)
    seeds = () if repeats is None else (f"repeats={repeats}",)
    return _carried_out(study, (*overrides, *seeds), out, jobs, executor, track, progress, request)


def _carried_out(
    study: StudyOfUser,
    overrides: tuple[str, ...],
    out: str | os.PathLike[str],
    jobs: int | None,
    executor: str | None,
    track: Track | Sequence[Track],
    progress: Progress,
    ablation: AblationRequest | None = None,
) -> Study:
    place = path_of(out, "out")
    named, trackers = trackers_of(track)
    overrides = (*overrides, *([f"track={json.dumps(named)}"] if named else []))
    check_whole_number("jobs", jobs)
    if wrong := [each for each in overrides if not isinstance(each, str)]:
        raise ConfigError(f"an override is {wrong[0]!r}; expected text such as 'train.epochs=1'")
    if isinstance(study, Mapping):
        described = study_from(with_names(study, place), overrides, place, ablation)
    elif (recorded := read_recorded_study(_study_file(study))) is not None:
        if overrides or jobs is not None or executor is not None or ablation is not None:
            raise ConfigError(f"{study} is a study of predictions, which trains nothing; give `out` alone")
        return Study(record_study(recorded, tables_of(recorded), place))
    else:
        described = study_file.read_study(_study_file(study), overrides, ablation=ablation)
    described = study_file.with_executor(described, executor)
    if trackers and ((jobs or 1) > 1 or described.executor != "local"):
        raise ConfigError(
            "a tracker that is no plug-in works in this process only; leave out jobs and the executor ray, "
            "or give the tracker as 'path/to/file.py:function'"
        )
    with shown(progress) as display:
        lines = _Lines(display, described, jobs or 1)
        folder = pipeline.run(
            described,
            out=place,
            jobs=jobs,
            show=lines.show,
            tell=lines.tell,
            say=display.print,
            trackers=trackers,
        )
    return Study(folder)


def _study_file(study: Any) -> Path:
    """The path of a study file. Raises ConfigError for anything else."""
    path = path_of(study, "study")
    if path.is_dir():
        repeats = path / "config.yaml"
        hint = f"; {repeats} repeats this run" if repeats.is_file() else ""
        raise ConfigError(f"study is the folder {path}; expected a study file or a dictionary{hint}")
    return path


class _Lines:
    """What is shown of a study: a bar for each training here, and a line on each run that has ended, or on
    some of many."""

    def __init__(self, display: Display, study: study_file.Study, jobs: int) -> None:
        self.display, self.together = display, jobs > 1 or study.executor != "local"
        self.total = number_of_runs((each.config for each in study.variants), study.seeds)
        self.ended = 0
        self.epochs: Epochs | None = None

    def show(self, task: Task) -> Show:
        what, epochs = f"{task.run} seed {task.seed}", task.config.train.epochs
        self.epochs = Epochs(self.display, what, task.folder, epochs, lines=self.total == 1)
        return self.epochs.show

    def tell(self, task: Task, record: RunRecord) -> None:
        if self.epochs is not None:
            self.epochs.end()
        self.ended += 1
        _tell_of_files(task, record)
        if self.together:
            self.display("runs", self.ended, self.total)
        if self.ended % math.ceil(self.total / LINES) == 0 or record.failures:
            self.display.print(f"[{self.ended}/{self.total}] {_ended(task, record)}")


def _ended(task: Task, record: RunRecord) -> str:
    """One line on a run that has ended."""
    name = f"{task.run} seed {task.seed}"
    if record.failures:
        return f"{name}: {next(iter(record.failures.values())).message}"
    accuracy = record.scores.get("test", {}).get("accuracy")
    return f"{name}: {100 * accuracy.value:.2f} % of {accuracy.n:,} test images" if accuracy else name


@public_call()
def train(
    model: str | Mapping[str, Any] | nn.Module = "simple_cnn",
    data: str | os.PathLike[str] | Mapping[str, Any] | Data = "digits",
    *,
    out: str | os.PathLike[str] = "runs/python",
    name: str | None = None,
    seed: int = 0,
    input: Mapping[str, Any] | None = None,
    tta: str | Sequence[str] = (),
    track: Track | Sequence[Track] = (),
    progress: Progress = True,
    **options: Any,
) -> Run:
    """Trains one model and returns the finished run. `options` are those of `train:` in a study file
    (epochs, lr, …).

    `model` is a plug-in by name, or any nn.Module from images to logits, without softmax; your module is
    copied and stays as it is. The name of an estimator (knn) fits that estimator; of the options it takes
    only device, precision, threads, memory_format, subset and calibration. `data` is a plug-in by name, the
    path of your images, or Data.from_arrays(images, labels).

    The run's folder is `out/name/seed-<seed>`; the default name holds the data, the model and the options,
    so that calls with other arguments make other runs. A second call with the same arguments returns the
    finished run at once, or resumes an interrupted one.

    `tta` ("flip", …) also scores the trained model with its probabilities averaged over views of an image.
    `track` lists trackers: plug-ins by name, functions of an entry (`stresslens.plugins`: Scalars, …), or
    objects with `log(entry)` and `close()`. The latter two belong to no configuration. `progress` shows a
    bar with the time left, and a line for an epoch, in a notebook and on a terminal; or it is a function
    that is called a few times a second with what is being done, how much of it is done (epochs), and how
    much there is. Raises ConfigError, DataError, TrainingDiverged, and Stopped after a signal, when all is
    saved."""
    named, trackers = trackers_of(track)
    views = views_of(tta)
    more = {"track": named, **({"evaluation": {"tta": views}} if views else {})}
    place = path_of(out, "out")
    task = training_task(model, data, options, out=place, name=name, seed=seed, input=input, more=more)
    snapshot = None if task.module is None else copied(task.module)
    task = replace(task, trackers=trackers)
    with shown(progress) as display:
        for line in go_on([task]):
            display.print(line)
        (task,) = autotune([task], most_threads=os.cpu_count() or 1)
        epochs = Epochs(display, task.run, task.folder, task.config.train.epochs, lines=True)
        record = succeeded(stages.carry_out(task, epochs.show))
        epochs.end()
    _tell_of_files(task, record)
    return Run(task.folder, record.as_json(), snapshot, data_now=task.data)


def _tell_of_files(task: Task, record: RunRecord) -> None:
    """A Notice of what a loader said of its files, for example those that were left out."""
    for line in record.data.on_files() if record.usable else []:
        warnings.warn(f"data: {line}", Notice, stacklevel=2)
