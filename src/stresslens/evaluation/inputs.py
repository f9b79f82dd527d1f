"""Input validation before an attack or an explanation: the model, images and labels.

The model must map images in [0, 1] to logits, and the images and labels must fit it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from stresslens.core.answers import answered
from stresslens.core.arrays import image_tensor
from stresslens.core.attack_base import attacked
from stresslens.core.class_names import names_of
from stresslens.core.data import Split
from stresslens.core.dtypes import as_input
from stresslens.core.errors import ConfigError, DataError, first_line
from stresslens.core.labels import label_numbers
from stresslens.core.outputs import logits_in, return_logits

SUM_TOLERANCE = 1e-5
"""Outputs whose sum differs from 1 by less than this count as probabilities."""


def check_inputs(model: Any, images: Any, labels: Any = None) -> Split:
    """Checks the model, images and labels, and returns the images and labels as a Split.

    `images` and `labels` are as `image_tensor` and `label_numbers` take them; or `images` is a
    Split. Raises ConfigError if the model cannot be attacked, and DataError if the images or labels
    cannot be used.
    """
    if not isinstance(model, nn.Module):
        kind = type(model).__name__
        if hasattr(model, "fit") and hasattr(model, "predict"):
            raise ConfigError(
                f"{kind} is an estimator without gradients; "
                "attacks need a torch.nn.Module from images to logits"
            )
        raise ConfigError(
            f"model is a {kind}; expected a torch.nn.Module from images (N, C, H, W) in [0, 1] "
            "to logits (N, classes)"
        )
    split = images.in_range() if isinstance(images, Split) else _split(model, images, labels)
    _check_device(model)
    _check_logits(model, split)
    return split


def _split(model: nn.Module, images: Any, labels: Any) -> Split:
    if labels is None:
        raise ConfigError("labels are missing; an attack needs the true class of every image")
    split = arrays_as_split(images, label_numbers(labels, names_of(model)))
    return replace(split, images=split.images[:].to(torch.float32)) if split.scale == 1 else split


def _check_device(model: nn.Module) -> None:
    devices = {str(tensor.device) for tensor in (*model.parameters(), *model.buffers())}
    if len(devices) > 1 or "meta" in devices:
        raise ConfigError(
            f"the model lies on {' and '.join(sorted(devices))}; move it to one device first (model.to(…))"
        )


@contextmanager
def returning_logits(model: nn.Module | None, split: Split) -> Iterator[None]:
    """Inside the context the model returns its logits alone (`core.outputs`). A model that does so
    for the split's images stays as it is, and so does one that fails: its own check tells that."""
    more = isinstance(model, nn.Module) and _returns_more(model, split)
    handle = nn.Module.register_forward_hook(model, return_logits) if more and model is not None else None
    try:
        yield
    finally:
        if handle is not None:
            handle.remove()


def _returns_more(model: nn.Module, split: Split) -> bool:
    """Whether a model returns anything else than a tensor (N, K), also for a single image."""
    x = _sample(model, split)
    try:
        with attacked(model), torch.no_grad():
            return not isinstance(model(x), Tensor) or model(x[:1]).ndim == 1
    except Exception:  # a user's model may raise anything
        return False


def _sample(model: nn.Module, split: Split) -> Tensor:
    """Up to 8 images of the split, on the model's device and in its dtype."""
    rows = torch.linspace(0, len(split) - 1, min(8, len(split))).long()
    return as_input(split.floats(split.images[rows]), model)


def _check_logits(model: nn.Module, split: Split) -> None:
    x, name = _sample(model, split), type(model).__name__
    try:
        with attacked(model), torch.no_grad():
            logits = logits_in(model(x), model)
    except ConfigError:
        raise
    except Exception as error:  # a user's model may raise anything
        reason = first_line(error)
        raise ConfigError(
            f"{name} cannot take images of shape {split.shape} (channels, height, width): {reason}; "
            "a module gets images as they are, only a run resizes pictures"
        ) from error
    if logits.ndim != 2 or len(logits) != len(x):
        raise ConfigError(
            f"{name} returns shape {tuple(logits.shape)} for {len(x)} images; "
            f"expected logits ({len(x)}, classes)"
        )
    classes = logits.shape[1]
    if classes < 2:
        raise ConfigError(
            f"{name} has {classes} output; "
            "expected a logit for each of at least two classes (for one score s: [0, s])"
        )
    low, high = int(split.labels.min()), int(split.labels.max())
    if low < 0 or high >= classes:
        bad = int(((split.labels < 0) | (split.labels >= classes)).nonzero()[0])
        raise DataError(
            f"label {int(split.labels[bad])} (image {bad}) is out of range; "
            f"{name} has the classes 0 to {classes - 1}"
        )
    logits = logits[answered(logits)]
    if not len(logits):
        raise ConfigError(f"{name} returns NaN or infinity for all {len(x)} images that it was tried on")
    sums = logits.double().sum(1)
    if (
        bool((logits >= 0).all())
        and bool((logits <= 1).all())
        and bool(((sums - 1).abs() < SUM_TOLERANCE).all())
    ):
        raise ConfigError(
            f"{name} returns probabilities (rows in [0, 1] that add up to 1); their gradients vanish "
            "where the model is confident; remove the softmax, so that it returns logits"
        )


def arrays_as_split(images: Any, labels: Tensor | None) -> Split:
    """A user's images as a split (`core.arrays.image_tensor`), with labels (N,) int64, by default 0.
    Raises DataError for images that leave [0, 1]."""
    x = image_tensor(images, None if labels is None else len(labels))
    y = torch.zeros(len(x), dtype=torch.int64) if labels is None else labels
    return Split(x, y, 255.0 if x.dtype == torch.uint8 else 1.0).in_range()
