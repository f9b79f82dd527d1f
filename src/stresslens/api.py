"""The public functions: train, attack, explain, …, for plug-ins by name and for your own modules
and tensors."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from stresslens.comparison.folders import compare_folders
from stresslens.config import registry, study_file
from stresslens.config.threat_model import resolved_threat_model, with_known_names
from stresslens.config.validation import applies_to_estimators
from stresslens.core.ball import Norm
from stresslens.core.class_names import names_of
from stresslens.core.copies import copied, eager_module, usable_module
from stresslens.core.data import Data, Split
from stresslens.core.draws import seed_number
from stresslens.core.dtypes import device_of
from stresslens.core.errors import ConfigError, DataError, Notice
from stresslens.core.labels import label_numbers
from stresslens.core.run_folder import RunFolder
from stresslens.core.torch_settings import initial_settings
from stresslens.core.types import Estimate, Finding
from stresslens.evaluation.data_check import data_findings
from stresslens.evaluation.estimator import Estimated
from stresslens.evaluation.export import Exported, export_run
from stresslens.evaluation.inputs import arrays_as_split, check_inputs, returning_logits
from stresslens.evaluation.predictor import with_prompts
from stresslens.evaluation.record import RunRecord
from stresslens.evaluation.saved_model import open_model
from stresslens.evaluation.scores import Predictions, distinct_predictions, predictions_of_module, scores_of
from stresslens.explanation.explanation import Explanation
from stresslens.explanation.image_selection import classes_to_explain
from stresslens.explanation.maps import compute_maps
from stresslens.report.page import write_report as _write_report
from stresslens.robustness import verification
from stresslens.robustness.attack_run import audited, robustness_config
from stresslens.robustness.measure import measure
from stresslens.robustness.result import AttackResult
from stresslens.robustness.verification import Verification
from stresslens.study import pipeline, stages
from stresslens.study.failures import succeeded
from stresslens.study.longer_runs import go_on
from stresslens.study.run_tasks import python_task
from stresslens.training.autotune import autotune
from stresslens.training.task import Task

Images: TypeAlias = Tensor | np.ndarray | Sequence[Any]
"""Images as `core.arrays.image_tensor` takes them."""
Labels: TypeAlias = Tensor | np.ndarray | Sequence[int] | Sequence[str]
"""Labels as `core.labels.label_numbers` takes them."""


@dataclass(frozen=True)
class Run:
    """A finished run: its folder, its record, and what can be read from them."""

    folder: Path
    record: Mapping[str, Any]
    module: nn.Module | None = None

    def scores(self, split: str = "test") -> dict[str, Estimate]:
        """Each named score with its interval."""
        known = RunRecord.model_validate(self.record).scores
        if split not in known:
            raise ConfigError(
                f"{self.folder} has no scores for {split!r}; it has {', '.join(known) or 'none'}"
            )
        return known[split]

    def predictions(self, split: str = "test") -> Predictions:
        return Predictions.of_arrays(RunFolder(self.folder).load_predictions(split))

    @initial_settings()
    def model(self) -> nn.Sequential:
        """The trained model of the chosen epoch, in evaluation mode: images (N,C,H,W) in [0,1] to logits
        (N,K)."""
        return open_model(RunFolder(self.folder), trust=True, module=self.module)


@initial_settings()
def run(
    study: str | Path,
    *overrides: str,
    out: str | Path = "runs",
    jobs: int | None = None,
    executor: str | None = None,
) -> Path:
    """Runs a study file and returns its folder; `report.html` is in it.

    `overrides` are `key.path=value`. `jobs` runs are carried out at a time (default one; on Ray one a
    core); `executor` is "local" or "ray", by default the study's own. Raises ConfigError with every mistake
    of the file, DataError, TrainingDiverged, and Stopped after a signal."""
    described = study_file.with_executor(study_file.read_study(Path(study), overrides), executor)
    return pipeline.run(described, out=Path(out), jobs=jobs, tell=_tell_of_files)


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


@initial_settings()
def attack(
    model: nn.Module,
    images: Images | Split,
    labels: Labels | None = None,
    *,
    radii: str | float | Sequence[float | str],
    norm: str = "linf",
    protocol: str | Sequence[Any] = "fast",
    out: str | Path | None = None,
    surrogate: nn.Module | None = None,
    n_images: int | Literal["all"] = "all",
    **options: Any,
) -> AttackResult:
    """Finds the smallest radius that breaks each image, for any nn.Module from images in [0, 1] to logits.

    `images` (N, C, H, W) float in [0, 1] or uint8 with `labels` (N,), or a Split. `radii` in pixel units:
    8/255, [0, 0.05] or "0:0.1:0.01". `n_images` are drawn at random from them. `options` are those of
    `robustness:` in a study file (individual_attacks, target, success, eot_samples, bpda, audit, seed).
    With `out`, a folder, the result is kept there, and a call that was killed resumes. The model is
    unchanged afterwards. Raises ConfigError and DataError, before anything is computed, for what cannot be
    attacked."""
    for name, instead in (
        ("split", "give the images themselves"),
        ("certificates", "they belong to runs: stresslens attack --certificate"),
    ):
        if name in options:
            raise ConfigError(f"attack has no option {name!r}: {instead}")
    if isinstance(model, nn.Module) and any(isinstance(part, Estimated) for part in model.modules()):
        raise ConfigError(
            "the model is an estimator; attacks follow gradients, which it lacks, so it would look more "
            "robust than it is"
        )
    model, surrogate = usable_module(model), usable_module(surrogate)
    split = check_inputs(model, images, labels).uncached()
    asked = robustness_config(
        {
            "images": n_images,
            **options,
            "radii": list(radii) if isinstance(radii, Sequence) and not isinstance(radii, str) else radii,
            "norm": norm,
            "protocol": protocol if isinstance(protocol, str) else list(protocol),
        }
    )
    threat = with_known_names(resolved_threat_model(asked, Path.cwd()), names_of(model))
    model = eager_module(model)
    surrogate = eager_module(surrogate) if isinstance(surrogate, nn.Module) else surrogate
    with returning_logits(model, split), returning_logits(surrogate, split):
        robust, place = measure(
            model, split, threat, home=Path(out) if out is not None else None, surrogate=surrogate
        )
        if asked.audit and not robust.result.audited:
            robust = audited(robust, model, split, threat, surrogate=surrogate)
            if place is not None:
                robust.save(place)
    return robust


@initial_settings()
def verify(
    model: nn.Module,
    adversarials: Tensor | np.ndarray,
    images: Images,
    labels: Labels,
    *,
    eps: float | Tensor | np.ndarray,
    norm: Norm = "linf",
    claimed: float | None = None,
) -> Verification:
    """Recounts given adversarial images: are they inside ball and box, and what does the model answer in
    float32?

    All arrays have one entry an image; `eps` is one radius, or one for each image; `claimed` is a published
    robust accuracy to compare with. Raises ConfigError and DataError for what cannot be read."""
    net = usable_module(model)
    return verification.verify(net, adversarials, images, labels, eps=eps, norm=norm, claimed=claimed)


@initial_settings()
def explain(
    model: nn.Module,
    images: Images | Split,
    explainer: str | Mapping[str, Any] = "integrated_gradients",
    *,
    answers: Labels | None = None,
    train: Split | None = None,
    check: bool = False,
    seed: int = 0,
) -> Explanation:
    """Computes attribution maps for any nn.Module from images in [0, 1] to logits. The model is unchanged
    afterwards.

    `images` (N, C, H, W) float in [0, 1] or uint8, or a Split; `explainer` is a plug-in by name or {name:
    {option: value}}; `answers` (N,) are the classes to explain, by default the predicted ones. Some
    explainers cover pixels with the mean of the training images: give these as `train`. `check` also
    computes the quality checks. Raises ConfigError and DataError."""
    wanted = None if answers is None else label_numbers(answers, names_of(model))
    model = eager_module(usable_module(model)) if isinstance(model, nn.Module) else model
    if isinstance(images, Split):
        given = images if wanted is None else replace(images, labels=wanted)
    else:
        given = arrays_as_split(images, wanted)
    split = check_inputs(model, given)
    name, _ = registry.name_and_options("explainers", explainer)
    bound = registry.resolve("explainers", explainer, base=Path.cwd())
    split, device = split.uncached(), device_of(model)
    x = split.floats(split.images[:]).to(device, torch.float32)
    y = split.labels if wanted is not None else torch.from_numpy(classes_to_explain(model, split))
    with returning_logits(model, split):
        maps, checks = compute_maps(
            model, bound, x, y.to(device), name=name, train=train, seed=seed, check=check
        )
    quality = None if checks is None else checks.as_json()
    return Explanation(
        maps.values.cpu().numpy(), y.cpu().numpy(), maps.signed, maps.unit, maps.notes, quality
    )


@initial_settings()
def check_data(data: str | Mapping[str, Any] | Data) -> list[Finding]:
    """Finds duplicates, leaks between splits, wrong or rare labels, and shortcuts. It needs no model.

    `data` is as in `train`. The findings on the same images and labels are kept in the cache folder. Raises
    ConfigError and DataError."""
    return data_findings(
        data.uncached() if isinstance(data, Data) else registry.resolve("datasets", data, base=Path.cwd())()
    )


def compare(
    *folders: str | Path, split: str = "test", difference: float | None = None, metric: str = "accuracy"
) -> dict[str, Any]:
    """Compares runs (…/seed-0) or variants (runs/STUDY/VARIANT) with the first, or the variants of a study
    by its contrasts.

    Returns what `stresslens compare --json` prints: "verdicts" in words, "contrasts" with differences,
    intervals, p before and after Holm's correction, "plan", "costs", and "regressions". `difference` (a
    share, 0.01 for one point) is the difference that the plans are for; `metric` is "accuracy", or
    "robust@0.05" for runs that were attacked. Raises ConfigError for folders that cannot be compared."""
    paths = [Path(folder) for folder in folders]
    return compare_folders(paths, split=split, ask=difference, metric=metric).as_json()


@initial_settings()
def load(folder: str | Path, *, trust: bool = False, module: nn.Module | None = None) -> nn.Sequential:
    """The trained model of a run's folder, in evaluation mode: images (N, C, H, W) in [0, 1] to logits (N,
    K).

    Plug-ins that are not built in are executed only with `trust`. A run that was trained on your own module
    needs it as `module`. Raises ConfigError when files are missing, damaged or do not belong together."""
    return open_model(RunFolder(Path(folder)), trust=trust, module=module)


@initial_settings()
def export(
    run: Run | str | Path,
    to: str = "onnx",
    *,
    out: str | Path | None = None,
    trust: bool = False,
    module: nn.Module | None = None,
) -> Exported:
    """Writes a trained run as "onnx", "torch" (a program of torch.export) or "safetensors" (a folder), and
    checks it.

    `out` is the file or folder, by default in the run's folder. Your own plug-ins are executed only with
    `trust`; a run that was trained on your own module needs it as `module`. Raises ConfigError for what
    cannot be exported, and where the file would give other answers."""
    if isinstance(run, Run):
        trust, module = True, run.module if module is None else module
    folder = RunFolder(run.folder if isinstance(run, Run) else Path(run))
    return export_run(folder, to, out=None if out is None else Path(out), trust=trust, module=module)


@initial_settings()
def predict(
    model: nn.Module,
    images: Images,
    *,
    prompts: Sequence[str] | None = None,
    templates: Sequence[str] = ("{}",),
) -> np.ndarray:
    """(N, K) probabilities for images (N, C, H, W): uint8, or float in [0, 1]; NaN for an image whose logits
    are not finite. The model gives logits; its mode is not changed.

    `prompts` are K captions for a model with a text encoder (openclip), used in place of its classes; each
    is put into every one of the `templates`. Raises ConfigError for captions that the text encoder cannot
    tell apart."""
    model = usable_module(model)
    if prompts is not None:
        model = with_prompts(model, prompts, templates)
    split = arrays_as_split(images, None)
    return predictions_of_module(model, split).probabilities


@initial_settings()
def evaluate(
    model: nn.Module,
    images: Images | Split,
    labels: Labels | None = None,
) -> dict[str, Estimate]:
    """Every named score, with n and interval, of any nn.Module from images in [0, 1] to logits; its mode is
    not changed. Logits that are not finite are no answer, which is wrong; `no_answer` is their share.

    `images` (N, C, H, W) uint8 or float in [0, 1] with `labels` (N,), or a Split. An image that is there
    several times counts once. Raises DataError for other input, and ConfigError when the model does not
    return logits of shape (N, K)."""
    if isinstance(images, Split):
        split = images.uncached()
    else:
        if labels is None:
            raise ConfigError("evaluate needs labels beside the images")
        split = arrays_as_split(images, label_numbers(labels, names_of(model)))
    predictions = predictions_of_module(usable_module(model), split)
    classes = predictions.scores.shape[1]
    low, high = int(split.labels.min()), int(split.labels.max())
    if low < 0 or high >= classes:
        raise DataError(
            f"labels run from {low} to {high}, but the model has {classes} outputs "
            f"(labels 0 to {classes - 1})"
        )
    return scores_of(distinct_predictions(predictions, split), split.labels.cpu().numpy())


def write_report(folder: str | Path) -> Path:
    """Writes report.html of a study's or a run's folder again, from its files alone, and returns its
    path."""
    return _write_report(Path(folder))
