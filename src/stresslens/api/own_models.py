"""Models that a caller brings: functions, fitted classifiers and pipelines as modules."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias, get_args

from torch import nn

from stresslens.api.arguments import kind_of
from stresslens.api.words import public_call
from stresslens.core.center_crop import CenterCrop
from stresslens.core.errors import ConfigError
from stresslens.core.fitted_classifier import is_classifier, of_classifier
from stresslens.core.foreign_model import ForeignModel, Layout, Output
from stresslens.core.image_processor import processor_preprocessing
from stresslens.core.layers import Normalize, with_input_layers

OwnModel: TypeAlias = nn.Module | Callable[[Any], Any] | Any
"""A module, a function of a batch of images, a fitted classifier with the methods of scikit-learn, or an
image-classification pipeline of transformers."""
LAYOUTS, OUTPUTS = get_args(Layout), get_args(Output)


@public_call()
def as_model(
    model: OwnModel,
    *,
    layout: Layout | None = None,
    bgr: bool = False,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    scale: float = 1.0,
    size: int | tuple[int, int] | None = None,
    output: Output | None = None,
    columns: Sequence[int] | None = None,
    classes: int | None = None,
    batch: int | None = None,
) -> nn.Module:
    """A model of other software as a module from images (N, C, H, W) in [0, 1] to logits (N, K), which every
    function here takes.

    `model` is a module, a function of a float32 array of images that returns scores, a fitted classifier
    with the methods of scikit-learn, or an image-classification pipeline of transformers, whose own
    preprocessing is kept. Images are resized to `size` (height and width) and become
    (x - `mean`) / `std` · `scale`: `scale=255` for a model of bytes, 16 for a classifier of load_digits. Then
    they lie as `layout` says: "nchw", "nhwc", or "flat" (N, C·H·W), which is usual for a classifier; with
    `bgr` the blue channel comes first. `output` says what it returns: "logits" (any scores),
    "probabilities", or "labels" (class numbers (N,), which need `classes`). `columns` are the outputs that
    are the classes, in their order. `batch` is the number of images of a pass, where it is fixed.

    A module keeps its gradient. Everything else has none: attacks that follow it refuse it by name, and
    the others (hop_skip_jump, boundary, square, …) take it. Raises ConfigError for anything else."""
    if layout not in (None, *LAYOUTS) or output not in (None, *OUTPUTS):
        wrong, known = (layout, LAYOUTS) if layout not in (None, *LAYOUTS) else (output, OUTPUTS)
        raise ConfigError(f"{wrong!r} is none of {', '.join(known)}")
    given: dict[str, Any] = {"bgr": bgr, "columns": columns, "batch": batch}
    if _is_pipeline(model):
        own = {"layout": layout, "mean": mean, "std": std, "size": size, "output": output, "classes": classes}
        _check_idle({**own, "scale": None if scale == 1 else scale}, "a pipeline, which prepares its images")
        return _of_pipeline(model, given)
    is_module = isinstance(model, nn.Module)
    if not is_module and is_classifier(model):
        idle = {"output": output, "classes": classes, "batch": batch}
        _check_idle(idle, "a classifier, whose methods say it themselves")
        net = of_classifier(model, None, layout=layout or "flat", bgr=bgr, columns=columns)
    elif is_module or is_own_model(model):
        called = type(model).__name__
        name = called if is_module else f"the function {getattr(model, '__name__', called)}"
        net = ForeignModel(
            model, name, classes=classes, layout=layout or "nchw", output=output or "logits", **given
        )
    else:
        raise ConfigError(
            f"model is {kind_of(model)}; expected a module, a function of images, a fitted classifier, or a "
            "pipeline of transformers (a run has its own model: sl.load(run))"
        )
    if mean is None and std is None and scale == 1 and size is None:
        return net
    normalize = _normalize(mean, std, scale)
    return with_input_layers(net, normalize, (size, size) if isinstance(size, int) else size)


def _check_idle(options: Mapping[str, Any], what: str) -> None:
    """Raises ConfigError for an option that means nothing to a model."""
    if given := [name for name, value in options.items() if value is not None]:
        raise ConfigError(f"{given[0]} means nothing to {what}; leave it out")


def module_of(value: Any) -> nn.Module | None:
    """A module for what a caller gives as a model: the module itself, or `as_model` of a function, of a
    fitted classifier or of a pipeline. None for anything else."""
    if isinstance(value, nn.Module):
        return value
    return as_model(value) if is_own_model(value) else None


def is_own_model(value: Any) -> bool:
    """Whether a value is a fitted classifier, a function of images, or a pipeline of transformers."""
    return is_classifier(value) or (callable(value) and not isinstance(value, type | str | os.PathLike))


def _normalize(mean: Sequence[float] | None, std: Sequence[float] | None, scale: float) -> Normalize:
    channels = len(mean if mean is not None else std if std is not None else [0])
    centre, spread = list(mean or [0.0] * channels), list(std or [1.0] * channels)
    if len(centre) != len(spread):
        raise ConfigError(f"mean has {len(centre)} numbers and std {len(spread)}; give one for each channel")
    if min(spread) <= 0 or scale <= 0:
        raise ConfigError("std and scale are above 0")
    return Normalize.by_moments(centre, spread, scale)


def _is_pipeline(value: Any) -> bool:
    """Whether a value is a pipeline of transformers with an image processor."""
    return isinstance(getattr(value, "model", None), nn.Module) and hasattr(value, "image_processor")


def _of_pipeline(pipeline: Any, given: dict[str, Any]) -> nn.Module:
    """The module of a pipeline behind its own preprocessing."""
    net, processor = pipeline.model, pipeline.image_processor
    if processor is None or not hasattr(processor, "to_dict"):
        raise ConfigError("the pipeline has no image processor; give its module: as_model(pipeline.model, …)")
    wanted = processor_preprocessing(processor.to_dict(), net.config.to_dict())
    height, width = wanted.shape[1:]
    resized, crop = (height, width), None
    if wanted.crop is not None and wanted.crop < 1:
        resized = (round(height / wanted.crop), round(width / wanted.crop))
        crop = CenterCrop((height, width), resized)
    own = ForeignModel(net, type(net).__name__, **given)
    return with_input_layers(own, wanted.normalize, resized, wanted.interpolation, crop)
