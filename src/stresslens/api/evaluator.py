"""What a trained model answers: predictions, scores, its layers, its export."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from stresslens.api.arguments import is_word, path_of, views_of
from stresslens.api.arrays import Images, Labels
from stresslens.api.named_scores import Scores
from stresslens.api.prediction_sets import guaranteed
from stresslens.api.runs import Run
from stresslens.api.subjects import (
    DataNow,
    ModelLike,
    RunLike,
    card_of,
    images_for,
    is_path,
    is_run_of_estimator,
    model_of,
    run_behind,
    run_of,
)
from stresslens.api.words import public_call
from stresslens.core.class_names import names_of
from stresslens.core.copies import usable_module
from stresslens.core.data import Split
from stresslens.core.errors import ConfigError, DataError
from stresslens.core.labels import label_numbers
from stresslens.core.layer_table import LayerTable
from stresslens.core.layer_table import layer_table as table_of_layers
from stresslens.core.layers import shape_seen
from stresslens.core.pieces import FLOAT, at_most
from stresslens.core.run_folder import RunFolder
from stresslens.core.types import Shape
from stresslens.evaluation.averaged_views import AveragedViews, gain_of, score_averaged
from stresslens.evaluation.export import Exported, export_run
from stresslens.evaluation.finished_run import finished
from stresslens.evaluation.guarantee_scores import score_on_split
from stresslens.evaluation.guarantees import Wanted, check_calibrated, wanted
from stresslens.evaluation.inputs import arrays_as_split
from stresslens.evaluation.predictor import EXPORT, Predictor, open_predictor, with_prompts
from stresslens.evaluation.record import read_record
from stresslens.evaluation.saved_model import open_model
from stresslens.evaluation.scores import (
    BATCH,
    Predictions,
    distinct_predictions,
    predictions_of_module,
    scores_of,
)
from stresslens.report.page import write_reports_of
from stresslens.study.predict_stage import evaluate_again


@public_call()
def load(run: RunLike, *, trust: bool = False, module: nn.Module | None = None) -> nn.Sequential:
    """The trained model of a run, in evaluation mode: images (N, C, H, W) in [0, 1] to logits (N, K).

    `run` is a run or its folder, or a folder that `export` wrote. Plug-ins that are not built in are
    executed only with `trust`. A run that was trained on your own module needs it as `module`. Raises
    ConfigError when files are missing, damaged or do not belong together."""
    if is_path(run) and (Path(run) / EXPORT).is_file():
        return open_model(RunFolder(Path(run)), trust=trust, module=module)
    return run_of(run, trust=trust, module=module).model()


@public_call()
def export(
    run: RunLike,
    to: str = "onnx",
    *,
    out: str | os.PathLike[str] | None = None,
    trust: bool = False,
    module: nn.Module | None = None,
) -> Exported:
    """Writes a trained run as "onnx", "torch" (a program of torch.export), "safetensors" (a folder) or
    "page" (an HTML page that computes a small net in a browser), and checks it.

    `out` is the file or folder, by default in the run's folder. Your own plug-ins are executed only with
    `trust`; a run that was trained on your own module needs it as `module`. Raises ConfigError for what
    cannot be exported, and where the file would give other answers."""
    if isinstance(run, nn.Module):
        raise ConfigError(
            "run is a module; export takes a run (of sl.train or sl.open) or its folder, because its file "
            "also holds the classes, the size of images and the temperature"
        )
    found = run_of(run, trust=trust, module=module)
    place = None if out is None else path_of(out, "out")
    return export_run(RunFolder(found.folder), to, out=place, trust=found.trust, module=found.module)


@public_call()
def predict(
    model: ModelLike,
    images: Images,
    *,
    prompts: Sequence[str] | None = None,
    templates: Sequence[str] = ("{}",),
    tta: str | Sequence[str] = (),
    coverage: float | None = None,
    sets: str | None = None,
    by_class: bool = False,
    wrong_at_most: float | None = None,
    recall: Mapping[str, float] | None = None,
    trust: bool = False,
    module: nn.Module | None = None,
) -> np.ndarray:
    """(N, K) probabilities for images; NaN for an image whose logits are not finite.

    `model` is a module, whose mode is not changed, or a run, or a file that `export` wrote. For a module,
    `images` are (N, C, H, W): uint8, or float in [0, 1]. For a run they may also be pictures of any size
    (files, PIL images, uint8 arrays), which are prepared as the run's own images were; the probabilities
    are calibrated where the run has a temperature, as `stresslens predict` gives them.

    `prompts` are K captions for a model with a text encoder (openclip), used in place of its classes; each
    is put into every one of the `templates`. `tta` ("flip", "vertical_flip", "quarter_turns", "five_crops",
    or a list of them) averages the probabilities over these views of an image, the image itself included;
    they are not calibrated then.

    A run can give one of three guarantees, which its held-out images calibrate. With `coverage`, such as
    0.95, (N, K) truth values come back: sets that hold the true class of at least this share of images,
    made by `sets` ("lac", "aps" or "raps"), `by_class` in every class. With `wrong_at_most`, such as 0.01,
    images have NaN that the model is not sure of; at most this share of the other answers is wrong. With
    `recall`, such as {"malignant": 0.95}, (N, classes) truth values say where each of these is found.

    `trust` and `module` are as in `load`. Raises ConfigError for captions that the text encoder cannot tell
    apart, for views that the model does not allow and for guarantees that nothing calibrates, and
    DataError for images that cannot be used."""
    views, asked = views_of(tta), wanted(coverage, sets, by_class, wrong_at_most, recall)
    if len(asked.options) > 1:
        raise ConfigError(f"{asked.options[0]} does not go with {asked.options[1]}; give one of them")
    if asked and (prompts is not None or views):
        other = "prompts" if prompts is not None else "tta"
        raise ConfigError(f"{asked.options[0]} does not go with {other}; leave one of them out")
    if not isinstance(model, nn.Module) and is_path(model):
        return _predicted(model, images, prompts, templates, views, asked, trust, module)
    if asked:
        raise ConfigError(
            f"{asked.options[0]} needs a run, whose held-out images calibrate it; with arrays of your own "
            "use stresslens.prediction_sets"
        )
    net, given = usable_module(model_of(model)), arrays_as_split(images, None)
    if prompts is not None:
        net = with_prompts(net, prompts, templates)
    if views:
        net = AveragedViews(net, views, given.shape)
    return predictions_of_module(net, given).probabilities


def _predicted(
    model: RunLike,
    images: Images,
    prompts: Sequence[str] | None,
    templates: Sequence[str],
    views: Sequence[str],
    asked: Wanted,
    trust: bool,
    module: nn.Module | None,
) -> np.ndarray:
    """The probabilities of a run, or of an exported file, or what is asked for of them."""
    path = Path(model)
    if path.suffix not in (".onnx", ".pt2") and not (path / EXPORT).is_file():
        run = run_of(model, what="model", trust=trust, module=module)
        path, trust, module = run.folder, run.trust, run.module
    opened = open_predictor(
        path, trust=trust, module=module, captions=prompts, templates=templates, views=views
    )
    split = arrays_as_split(images_for(opened.facts, images), None)
    probabilities = _probabilities(opened, split)
    return guaranteed(opened, asked, split, probabilities) if asked else probabilities


def _probabilities(predictor: Predictor, split: Split) -> np.ndarray:
    """(N, K) calibrated probabilities."""
    size = at_most(BATCH, FLOAT * math.prod(split.shape))
    parts = (split.floats(split.images[start : start + size]) for start in range(0, len(split), size))
    answers = [predictor.answer(part.to(torch.float32))[0] for part in parts]
    logits = Predictions(np.concatenate(answers), split.labels.cpu().numpy(), np.arange(len(split)))
    return logits.calibrated(predictor.facts.temperature).probabilities


@public_call()
def evaluate(
    model: ModelLike,
    images: Images | Split | None = None,
    labels: Labels | None = None,
    *,
    split: str | None = None,
    tta: str | Sequence[str] = (),
    coverage: float | None = None,
    sets: str | None = None,
    by_class: bool = False,
    wrong_at_most: float | None = None,
    recall: Mapping[str, float] | None = None,
    data: DataNow = None,
    trust: bool = False,
    module: nn.Module | None = None,
) -> Scores:
    """Every named score, with n and interval, of any nn.Module from images in [0, 1] to logits, whose mode
    is not changed, or of a run. Logits that are not finite are no answer, which is wrong; `no_answer` is
    their share.

    `images` (N, C, H, W) uint8 or float in [0, 1] with `labels` (N,), or a Split. An image that is there
    several times counts once. For a run they may be pictures of any size, as in `predict`.

    Without images the scores of a run on its own data are returned: of its test images, or of another
    `split`. They are computed only where its record does not have them, from the data where they were, or
    `data`: the path where they lie now, or the data themselves.

    With `tta`, as in `predict`, the scores are those of probabilities averaged over views; `accuracy_gain`
    is by how much the accuracy is higher than that of the image alone, with a paired interval. A run keeps
    them in its record, beside the scores of the image alone.

    With `coverage`, `wrong_at_most` and `recall`, as in `predict`, there are also the scores of a run's
    guarantees: coverage and mean size of sets (`coverage_lac`, `set_size_lac`, …), the share that is
    answered and the share of wrong answers, and recall, precision and specificity of the classes.

    `trust` and `module` are as in `load`. Raises DataError for other input, and ConfigError when the model
    does not return logits of shape (N, K)."""
    views, asked = views_of(tta), wanted(coverage, sets, by_class, wrong_at_most, recall)
    run = run_behind(model, trust=trust, module=module, data=data)
    if is_word(images) and split is None:  # `evaluate(run, "validation")`
        images, split = None, images
    if images is None:
        if run is None or labels is not None:
            raise ConfigError("evaluate needs images and their labels; only a run has its own")
        if asked and views:
            raise ConfigError(f"{asked.options[0]} does not go with tta; leave one of them out")
        return _own_scores(run, split, views, asked)
    if asked:
        raise ConfigError(f"{asked.options[0]} is scored on a run's own images; leave the images out")
    if split is not None or data is not None:
        raise ConfigError("split and data are those of a run; leave them out, or leave the images out")
    return _scores_of_images(model, run, images, labels, views)


def _scores_of_images(
    model: ModelLike, run: Run | None, images: Images | Split, labels: Labels | None, views: Sequence[str]
) -> Scores:
    """The scores on images of the caller's; with `views` of averaged probabilities."""
    net = usable_module(model_of(model) if run is None else run.model())
    card = None if run is None else card_of(run)
    images = images_for(card, images)
    if isinstance(images, Split):
        given = images.uncached()
    else:
        if labels is None:
            raise ConfigError("evaluate needs labels beside the images")
        given = arrays_as_split(images, label_numbers(labels, names_of(net)))
    predictions = predictions_of_module(net, given)
    classes = predictions.scores.shape[1]
    low, high = int(given.labels.min()), int(given.labels.max())
    if low < 0 or high >= classes:
        raise DataError(
            f"labels run from {low} to {high}, but the model has {classes} outputs "
            f"(labels 0 to {classes - 1})"
        )
    kept = distinct_predictions(predictions, given)
    if not views:
        return Scores(scores_of(kept, given.labels.cpu().numpy()))
    averaged = predictions_of_module(AveragedViews(net, views, given.shape), given).select(kept.index)
    gain = {"accuracy_gain": gain_of(averaged, kept)}
    return Scores(scores_of(averaged, given.labels.cpu().numpy()) | gain)


def _own_scores(run: Run, split: str | None, views: Sequence[str], asked: Wanted) -> Scores:
    """The scores of a run on a split of its own data; with `views` of averaged probabilities."""
    chosen, folder = split or run.split, RunFolder(run.folder)
    if chosen not in ("train", "validation", "calibration", "test"):
        raise ConfigError(f"split is {chosen!r}; expected 'train', 'validation', 'calibration' or 'test'")
    if views:
        return _averaged_scores(run, chosen, views)
    if asked:
        check_calibrated(folder, chosen)
    elif chosen in run.record.get("scores", {}):
        return run.scores(chosen)
    record = read_record(folder)
    if chosen not in record.scores:
        record = evaluate_again(folder, chosen, trust=run.trust, module=run.module, data=run.data_now)
    further = score_on_split(asked, folder, record, chosen).named(record.classes) if asked else {}
    return Scores({**record.scores[chosen], **further})


def _averaged_scores(run: Run, split: str, views: Sequence[str]) -> Scores:
    """The scores of a run over views: those of its record, or new ones."""
    folder = RunFolder(run.folder)
    found = read_record(folder).averaged
    if found is None or found.views != list(dict.fromkeys(views)) or split not in found.scores:
        opened = finished(folder, split, trust=run.trust, device="cpu", module=run.module, data=run.data_now)
        with opened as (model, data, record):
            found = score_averaged(folder, model, data, record, views, [split])
        write_reports_of(run.folder)
    return Scores({**found.scores[split], "accuracy_gain": found.gain[split]})


@public_call()
def layer_table(
    net: ModelLike,
    shape: Shape | None = None,
    *,
    trust: bool = False,
    module: nn.Module | None = None,
) -> LayerTable:
    """The layer table of a module or of a run's net: output shapes, parameters, neurons, multiply-adds,
    memory, from a pass in evaluation mode on one image.

    `shape` is (channels, height, width); a run knows its own. Raises ConfigError where the net cannot
    take images of this shape."""
    if shape is not None and not (
        isinstance(shape, tuple | list)
        and len(shape) == 3
        and all(isinstance(n, int) and n > 0 for n in shape)
    ):
        raise ConfigError(f"shape is {shape!r}; expected (channels, height, width)")
    run = run_behind(net, what="net", trust=trust, module=module)
    if run is None:
        if shape is None:
            raise ConfigError("layer_table needs the shape of an image, (channels, height, width)")
        return table_of_layers(model_of(net), shape)
    if is_run_of_estimator(run):
        raise ConfigError(f"{run.folder} is the run of an estimator, which has no layers")
    whole = run.model()
    seen = shape_seen(whole, shape or RunFolder(run.folder).load_card().shape)
    return table_of_layers(whole.get_submodule("net"), seen)
