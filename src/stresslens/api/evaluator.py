"""What a trained model answers: predictions, scores, its layers, its export."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import nn

from stresslens.api.arrays import Images, Labels
from stresslens.api.named_scores import Scores
from stresslens.api.subjects import ModelLike, RunLike, model_of, run_of
from stresslens.core.class_names import names_of
from stresslens.core.copies import usable_module
from stresslens.core.data import Split
from stresslens.core.errors import ConfigError, DataError
from stresslens.core.labels import label_numbers
from stresslens.core.layer_table import LayerTable
from stresslens.core.layer_table import layer_table as table_of_layers
from stresslens.core.layers import shape_seen
from stresslens.core.run_folder import RunFolder
from stresslens.core.torch_settings import initial_settings
from stresslens.core.types import Shape
from stresslens.evaluation.estimator import Estimated
from stresslens.evaluation.export import Exported, export_run
from stresslens.evaluation.inputs import arrays_as_split
from stresslens.evaluation.predictor import with_prompts
from stresslens.evaluation.scores import distinct_predictions, predictions_of_module, scores_of


@initial_settings()
def predict(
    model: ModelLike,
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
    net = usable_module(model_of(model))
    if prompts is not None:
        net = with_prompts(net, prompts, templates)
    split = arrays_as_split(images, None)
    return predictions_of_module(net, split).probabilities


@initial_settings()
def evaluate(
    model: ModelLike,
    images: Images | Split,
    labels: Labels | None = None,
) -> Scores:
    """Every named score, with n and interval, of any nn.Module from images in [0, 1] to logits; its mode is
    not changed. Logits that are not finite are no answer, which is wrong; `no_answer` is their share.

    `images` (N, C, H, W) uint8 or float in [0, 1] with `labels` (N,), or a Split. An image that is there
    several times counts once. Raises DataError for other input, and ConfigError when the model does not
    return logits of shape (N, K)."""
    net = usable_module(model_of(model))
    if isinstance(images, Split):
        split = images.uncached()
    else:
        if labels is None:
            raise ConfigError("evaluate needs labels beside the images")
        split = arrays_as_split(images, label_numbers(labels, names_of(net)))
    predictions = predictions_of_module(net, split)
    classes = predictions.scores.shape[1]
    low, high = int(split.labels.min()), int(split.labels.max())
    if low < 0 or high >= classes:
        raise DataError(
            f"labels run from {low} to {high}, but the model has {classes} outputs "
            f"(labels 0 to {classes - 1})"
        )
    return Scores(scores_of(distinct_predictions(predictions, split), split.labels.cpu().numpy()))


@initial_settings()
def load(run: RunLike, *, trust: bool = False, module: nn.Module | None = None) -> nn.Sequential:
    """The trained model of a run's folder, in evaluation mode: images (N, C, H, W) in [0, 1] to logits (N,
    K).

    Plug-ins that are not built in are executed only with `trust`. A run that was trained on your own module
    needs it as `module`. Raises ConfigError when files are missing, damaged or do not belong together."""
    return run_of(run, trust=trust, module=module).model()


@initial_settings()
def export(
    run: RunLike,
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
    if isinstance(run, nn.Module):
        raise ConfigError(
            "run is a module; export takes a run, whose file then also holds its classes, its image size "
            "and its temperature: a run of sl.train or sl.open, or its folder"
        )
    found = run_of(run, trust=trust, module=module)
    place = None if out is None else Path(out)
    return export_run(RunFolder(found.folder), to, out=place, trust=found.trust, module=found.module)


@initial_settings()
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
    if isinstance(net, nn.Module):
        if shape is None:
            raise ConfigError("layer_table needs the shape of an image, (channels, height, width)")
        return table_of_layers(net, shape)
    run = run_of(net, what="net", trust=trust, module=module)
    whole = run.model()
    if any(isinstance(part, Estimated) for part in whole.modules()):
        raise ConfigError(f"{run.folder} is the run of an estimator, which has no layers")
    seen = shape_seen(whole, shape or RunFolder(run.folder).load_card().shape)
    return table_of_layers(whole.get_submodule("net"), seen)
