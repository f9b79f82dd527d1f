"""What is let in to be attacked: a model from images in [0, 1] to logits, and images and labels
that fit it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stresslens.core.attack_base import attacked
from stresslens.core.data import Split, as_tensor
from stresslens.core.errors import ConfigError, DataError, first_line

SUM = 1e-5
"""How near to 1 the outputs of a softmax add up."""
PIECE = 4096
"""Images whose range is looked at together."""


def check_inputs(model: Any, images: Any, labels: Any = None) -> Split:
    """The images with their labels, once they and the model are what an attack needs.

    images (N, C, H, W) float in [0, 1] or uint8, with labels (N,) whole numbers; or a Split. Raises
    ConfigError for a model that cannot be attacked and DataError for images or labels that cannot
    be used.
    """
    if not isinstance(model, nn.Module):
        kind = type(model).__name__
        if hasattr(model, "fit") and hasattr(model, "predict"):
            raise ConfigError(
                f"{kind} is an estimator without gradients; attacks need a torch.nn.Module from images to logits"
            )
        raise ConfigError(
            f"model is a {kind}; expected a torch.nn.Module from images (N, C, H, W) in [0, 1] to logits (N, classes)"
        )
    split = images if isinstance(images, Split) else _split(images, labels)
    _check_range(split)
    _check_place(model)
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
    """A tensor of somebody's array. Raises DataError where it holds anything but numbers."""
    try:
        return as_tensor(values)
    except (TypeError, ValueError) as error:
        raise DataError(f"{what} are not an array of numbers: {first_line(error)}") from error


def _check_range(split: Split) -> None:
    """Raises DataError for images that leave [0, 1] as a model is given them; NaN and infinity a
    Split refuses by itself."""
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


def _check_place(model: nn.Module) -> None:
    places = {str(tensor.device) for tensor in (*model.parameters(), *model.buffers())}
    if len(places) > 1 or "meta" in places:
        raise ConfigError(
            f"the model lies on {' and '.join(sorted(places))}; move it to one device first (model.to(…))"
        )


def _check_logits(model: nn.Module, split: Split) -> None:
    first = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
    rows = torch.linspace(0, len(split) - 1, min(8, len(split))).long()
    x = split.floats(split.images[rows]).to(first.device, first.dtype)
    name = type(model).__name__
    try:
        with attacked(model), torch.no_grad():
            logits = model(x)
    except Exception as error:  # a model of the user's own may raise anything
        reason = first_line(error)
        raise ConfigError(
            f"{name} cannot take images of shape {split.shape} (channels, height, width): {reason}"
        ) from error
    if not isinstance(logits, Tensor):
        kind = type(logits).__name__
        raise ConfigError(
            f"{name} returns a {kind}; expected a tensor of logits (N, classes): wrap it to return that alone"
        )
    if logits.ndim != 2 or len(logits) != len(x):
        raise ConfigError(
            f"{name} returns shape {tuple(logits.shape)} for {len(x)} images; expected logits ({len(x)}, classes)"
        )
    classes = logits.shape[1]
    if classes < 2:
        raise ConfigError(
            f"{name} has {classes} output; expected a logit for each of at least two classes (for one score s: [0, s])"
        )
    low, high = int(split.labels.min()), int(split.labels.max())
    if low < 0 or high >= classes:
        bad = int(((split.labels < 0) | (split.labels >= classes)).nonzero()[0])
        raise DataError(
            f"label {int(split.labels[bad])} (image {bad}) is out of range; {name} has the classes 0 to {classes - 1}"
        )
    if not bool(torch.isfinite(logits).all()):
        raise ConfigError(f"{name} returns NaN or infinity for some images")
    sums = logits.double().sum(1)
    if bool((logits >= 0).all()) and bool((logits <= 1).all()) and bool(((sums - 1).abs() < SUM).all()):
        raise ConfigError(
            f"{name} returns probabilities (rows in [0, 1] that add up to 1), whose gradients vanish where it is sure; "
            "take the softmax out, so that it returns logits"
        )
