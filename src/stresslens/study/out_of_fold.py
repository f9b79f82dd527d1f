"""Out-of-fold probabilities: every image is judged by models that were not trained on it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from signal import Signals
from typing import Any

import numpy as np
import torch
from torch import nn

from stresslens.config.schema import VariantConfig
from stresslens.core import devices
from stresslens.core.cache_folder import readable_caches, writable_cache
from stresslens.core.data import Data, Split
from stresslens.core.errors import DataError, Stopped, StresslensError
from stresslens.core.files import read_arrays, write_arrays
from stresslens.core.fingerprint import fingerprint_of
from stresslens.core.run_folder import FORMAT, RunFolder
from stresslens.core.sampling import fold_positions
from stresslens.core.version import __version__
from stresslens.evaluation.record import DataRecord, RunRecord
from stresslens.evaluation.saved_model import open_model
from stresslens.evaluation.scores import Predictions, calibration_of, predictions_of
from stresslens.metrics.classification import Labels
from stresslens.metrics.intervals import Floats
from stresslens.study.run_tasks import python_task
from stresslens.study.train_stage import train_stage
from stresslens.training.autotune import autotune, compute_config
from stresslens.training.task import Task
from stresslens.training.tracking import Tracking


@dataclass(frozen=True)
class FoldModel:
    """What is trained on each training part: a configuration, whose data do not count, or the caller's
    own `module` in place of its model. `value` is the model as the caller named it."""

    config: VariantConfig
    value: Any
    module: nn.Module | None = None


def out_of_fold_probabilities(
    whole: Split,
    classes: tuple[str, ...],
    model: FoldModel,
    *,
    folds: int,
    seeds: int,
    labels: Labels | None = None,
    tell: Callable[[], None] = lambda: None,
) -> Floats:
    """(S, N, K) probabilities of each image by S seeds, each with `folds` stratified parts of its own.

    A part's images are judged by a model that was trained on the other parts; groups stay whole. With
    `labels` (N,) the models are trained on these, with the folds of the given ones. The probabilities of a
    seed are calibrated by one temperature, which all its images decide. `tell` is called after each
    training. Raises DataError if a class has fewer images, or groups, than there are folds.
    """
    given, groups = whole.labels.cpu(), whole.columns.get("group")
    trained = whole if labels is None else replace(whole, labels=torch.from_numpy(labels))
    scores = np.empty((seeds, len(whole), len(classes)))
    compute = None
    for seed in range(seeds):
        try:
            parts = fold_positions(given, folds, seed=seed, groups=groups, names=classes)
        except DataError as error:
            raise DataError(f"{error}; take fewer folds, or leave the class out") from None
        for fold, part in enumerate(parts):
            rest = torch.ones(len(whole), dtype=torch.bool)
            rest[part] = False
            data = Data(trained.select(rest.nonzero().flatten()), None, trained.select(part), classes, "fold")
            task = replace(_task(model, data, seed * folds + fold), compute=compute)
            if compute is None:
                (task,) = autotune([task], most_threads=os.cpu_count() or 1)
                compute = compute_config(task)
            scores[seed, part.numpy()] = _scores(task, data)
            tell()
    return np.stack([_calibrated(of_seed, trained.labels.cpu().numpy()) for of_seed in scores])


def _calibrated(scores: Floats, labels: Labels) -> Floats:
    """(N, K) probabilities of scores, by the temperature that suits them."""
    predictions = Predictions(scores, labels, np.arange(len(labels)))
    return predictions.calibrated(calibration_of(predictions).temperature).probabilities


def _task(model: FoldModel, data: Data, seed: int) -> Task:
    kind = "estimator" if model.config.estimator is not None else "model"
    values: Mapping[str, Any] = {"data": data.name, kind: model.value, "train": {}, "input": {}}
    nowhere = Path(tempfile.gettempdir()) / "stresslens-fold"  # `_trained` puts it into a folder of its own
    return python_task(model.config, values, nowhere, "fold", seed, data=data, module=model.module)


def _scores(task: Task, data: Data) -> Floats:
    """(n, K) scores of the data's test images by a model that is trained on its training images. They come
    from the cache if the same was trained before."""
    file = f"{fingerprint_of([task.plan.fingerprint(data), __version__])}.npz"
    for cache in readable_caches():
        with suppress(StresslensError, KeyError, ValueError):
            kept = read_arrays(cache / "out_of_fold" / file, "")["scores"]
            if kept.shape == (len(data.test or ()), len(data.classes)):
                return kept.astype(np.float64)
    scores = _trained(task, data)
    with suppress(StresslensError):  # without a place for them they are computed again
        write_arrays(writable_cache("out_of_fold") / file, {"scores": scores.astype(np.float32)})
    return scores.astype(np.float32).astype(np.float64)


def _trained(task: Task, data: Data) -> Floats:
    assert data.test is not None
    compute = compute_config(task)
    cuda = [torch.device(compute.device)] if torch.device(compute.device).type == "cuda" else []
    devices.keep_memory()
    with tempfile.TemporaryDirectory() as place:
        folder = RunFolder(Path(place))
        record = RunRecord(
            format=FORMAT,
            status="running",
            data=DataRecord(),
            stages={},
            classes=list(data.classes),
            shape=data.shape,
        )
        task = replace(task, folder=folder.path)
        with torch.random.fork_rng(devices=cuda), compute.active():
            try:
                train_stage(task, folder, data, record, lambda state, epochs, done: None, Tracking())
            except Stopped as stopped:
                name = Signals(stopped.signal).name
                raise Stopped(
                    f"stopped by {name}; the same command repeats this training, and none before it",
                    stopped.signal,
                ) from None
            model = compute.place(open_model(folder, trust=True, module=task.module))
            return predictions_of(model, data.test).scores
