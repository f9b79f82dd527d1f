"""Input validation before an attack or an explanation: the model, images and labels.

The model must map images in [0, 1] to logits, and the images and labels must fit it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stresslens.core.answers import answered
from stresslens.core.attack_base import attacked, dtype_of
from stresslens.core.data import Split, as_tensor
from stresslens.core.errors import ConfigError, DataError, first_line
from stresslens.core.outputs import logits_in, return_logits

SUM_TOLERANCE = 1e-5
"""Outputs whose sum differs from 1 by less than this count as probabilities."""
PIECE = 4096
"""Number of images whose range is checked at once."""


def check_inputs(model: Any, images: Any, labels: Any = None) -> Split:
    """Checks the model, images and labels, and returns the images and labels as a Split.

    `images` is (N, C, H, W), float in [0, 1] or uint8, with `labels` (N,) integers; or it is a
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
    split = images if isinstance(images, Split) else _split(images, labels)
    _check_range(split)
    _check_device(model)
    _check_logits(model, split)
    return split


def _split(images: Any, labels: Any) -> Split:
    if not isinstance(images, Tensor | np.ndarray):
        raise DataError(f"images are a {type(images).__name__}; expected a tensor or an array (N, C, H, W)")
    if labels is None:
        raise ConfigError("labels are missing; an attack needs the true class of every image")
    x, y = numbers(images, "images"), numbers(labels, "labels")
    if x.ndim == 4 and x.shape[0] == 0:
        raise DataError("there are no images")
    if not x.is_floating_point() and x.dtype != torch.uint8:
        raise DataError(f"images are {x.dtype}; expected floats in [0, 1], or uint8 where 255 is white")
    if x.is_floating_point():
        x = x.detach().to(torch.float32)
    if y.is_floating_point() or y.dtype == torch.bool:
        raise DataError(f"labels are {y.dtype}; expected whole numbers, one class for each image")
    return Split(x, y.long(), 255.0 if x.dtype == torch.uint8 else 1.0)


def numbers(values: Any, what: str) -> Tensor:
    """Converts a user's array to a tensor. Raises DataError if it holds anything but numbers."""
    try:
        return as_tensor(values)
    except (TypeError, ValueError) as error:
        raise DataError(f"{what} are not an array of numbers: {first_line(error)}") from error


def _check_range(split: Split) -> None:
    """Raises DataError if an image leaves [0, 1] when it is given to a model.

    NaN and infinity are checked by Split itself.
    """
    if split.images.dtype == torch.uint8 and split.scale >= 255:
        return
    low, high, outside, first = torch.inf, -torch.inf, 0, -1
    for start, piece in zip(range(0, len(split), PIECE), split.pieces(PIECE)):
        x = split.floats(piece)
        low, high = min(low, float(x.min())), max(high, float(x.max()))
        wrong = ((x < 0) | (x > 1)).flatten(1).any(1).nonzero().flatten()
        if len(wrong):
            outside, first = outside + len(wrong), first if first >= 0 else start + int(wrong[0])
    if outside:
        hint = (
            "; divide by 255"
            if high > 2 and low >= 0
            else "; put the normalisation into the model, behind images in [0, 1]"
        )
        raise DataError(f"{outside} images leave [0, 1] ({low:g} to {high:g}), first at index {first}{hint}")


def _check_device(model: nn.Module) -> None:
    devices = {str(tensor.device) for tensor in (*model.parameters(), *model.buffers())}
    if len(devices) > 1 or "meta" in devices:
        raise ConfigError(
            f"the model lies on {' and '.join(sorted(devices))}; move it to one device first (model.to(…))"
        )


@contextmanager
def returning_logits(model: nn.Module | None, split: Split) -> Iterator[None]:
    """Inside the context the model returns its logits alone (`core.outputs`). A model that does so
    for the split's images stays as it is."""
    handle = None
    if model is not None:
        with attacked(model), torch.no_grad():
            if not isinstance(model(_sample(model, split)), Tensor):
                handle = nn.Module.register_forward_hook(model, return_logits)
    try:
        yield
    finally:
        if handle is not None:
            handle.remove()


def _sample(model: nn.Module, split: Split) -> Tensor:
    """Up to 8 images of the split, on the model's device and in its dtype."""
    first = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
    rows = torch.linspace(0, len(split) - 1, min(8, len(split))).long()
    return split.floats(split.images[rows]).to(first.device, dtype_of(model) or first.dtype)


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
            f"{name} cannot take images of shape {split.shape} (channels, height, width): {reason}"
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


def arrays_as_split(images: Tensor, labels: Tensor) -> Split:
    """Images (N, C, H, W), uint8 or float, as a split. Raises DataError for float images outside [0, 1]."""
    if images.dtype in (torch.float16, torch.bfloat16):
        images = images.float()
    if images.is_floating_point() and images.numel() and (images.min() < 0 or images.max() > 1):
        raise DataError(
            f"float images lie in [{float(images.min()):g}, {float(images.max()):g}]; "
            "expected [0, 1] (or uint8)"
        )
    if not labels.is_floating_point():
        labels = labels.long()
    return Split(images, labels, 255.0 if images.dtype == torch.uint8 else 1.0)
