"""Training from Python: a whole study, or one model."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from stresslens.api.runs import Run
from stresslens.api.studies import Study
from stresslens.config import registry, study_file
from stresslens.config.validation import applies_to_estimators
from stresslens.core.copies import copied, eager_module, usable_module
from stresslens.core.data import Data
from stresslens.core.draws import seed_number
from stresslens.core.errors import ConfigError, Notice
from stresslens.core.torch_settings import initial_settings
from stresslens.evaluation.record import RunRecord
from stresslens.study import pipeline, stages
from stresslens.study.failures import succeeded
from stresslens.study.longer_runs import go_on
from stresslens.study.run_tasks import python_task
from stresslens.training.autotune import autotune
from stresslens.training.task import Task


@initial_settings()
def run(
    study: str | Path,
    *overrides: str,
    out: str | Path = "runs",
    jobs: int | None = None,
    executor: str | None = None,
) -> Study:
    """Runs a study file and returns the study, which stands for its folder; `report.html` is in it.

    `overrides` are `key.path=value`. `jobs` runs are carried out at a time (default one; on Ray one a
    core); `executor` is "local" or "ray", by default the study's own. Raises ConfigError with every mistake
    of the file, DataError, TrainingDiverged, and Stopped after a signal."""
    described = study_file.with_executor(study_file.read_study(Path(study), overrides), executor)
    return Study(pipeline.run(described, out=Path(out), jobs=jobs, tell=_tell_of_files))


@initial_settings()
def train(
    model: str | Mapping[str, Any] | nn.Module = "simple_cnn",
    data: str | Path | Mapping[str, Any] | Data = "digits",
    *,
    out: str | Path = "runs/python",
    name: str | None = None,
    seed: int = 0,
    input: Mapping[str, Any] | None = None,
    track: str | Sequence[str | Mapping[str, Any]] = (),
    **options: Any,
) -> Run:
    """Trains one model and returns the finished run. `options` are those of `train:` in a study file
    (epochs, lr, …).

    `model` is a plug-in by name, or any nn.Module from images to logits, without softmax; your module is
    copied and stays as it is. The name of an estimator (knn) fits that estimator; of the options it takes
    only device, precision, threads, memory_format and subset. `data` is a plug-in by name or
    Data.from_arrays(images, labels), or a Path of images. `track` lists trackers. The run's folder is
    `out/name/seed-<seed>`; the default name holds the data, the model and the options, so that calls with
    other arguments make other runs. A second call with the same arguments returns the finished run at
    once, or resumes an interrupted one. Raises ConfigError, DataError, TrainingDiverged."""
    if not isinstance(model, str | Mapping | nn.Module):
        raise ConfigError(
            f"model is a {type(model).__name__}; expected a plug-in by name or a torch.nn.Module"
        )
    data = {"folder": {"path": str(data)}} if isinstance(data, Path) else data
    if not isinstance(data, str | Mapping | Data):
        what = "a plug-in by name, a Path of images or stresslens.Data.from_arrays(images, labels)"
        raise ConfigError(f"data is a {type(data).__name__}; expected {what}")
    seed = seed_number(seed)
    own_data, own_model = isinstance(data, Data), isinstance(model, nn.Module)
    kind = "model" if own_model else registry.model_or_estimator(model)
    given = [*(["input"] if input else []), *(f"train.{name}" for name in sorted(options))]
    idle = [key for key in given if kind == "estimator" and not applies_to_estimators(key)]
    if idle:
        what = f"{idle[0].rpartition('.')[2]} means nothing to the estimator {model!r}"
        raise ConfigError(f"{what}, which no gradient trains; leave it out")
    values = {
        "data": "digits" if own_data else data,
        kind: "linear" if own_model else model,
        "input": dict(input or {}),
        "train": options,
        "track": [track] if isinstance(track, str | Mapping) else list(track),
    }
    config = study_file.variant_config_from(values, Path.cwd())
    module = eager_module(usable_module(model)) if isinstance(model, nn.Module) else None
    snapshot = None if module is None else copied(module)
    own = data.uncached() if isinstance(data, Data) else None
    task = python_task(config, values, Path(out), name, seed, data=own, module=module)
    go_on([task])
    (task,) = autotune([task], most_threads=os.cpu_count() or 1)
    record = succeeded(stages.carry_out(task))
    _tell_of_files(task, record)
    return Run(task.folder, record.as_json(), snapshot)


def _tell_of_files(task: Task, record: RunRecord) -> None:
    """A Notice of what a loader said of its files, for example those that were left out."""
    for line in record.data.on_files() if record.usable else []:
        warnings.warn(f"data: {line}", Notice, stacklevel=2)
