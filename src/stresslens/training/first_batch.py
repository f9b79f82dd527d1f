"""A trial of the smallest batch of an epoch in training mode, before anything is trained."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from stresslens.config.schema import FineTune, Train
from stresslens.core.copies import unchanged
from stresslens.core.data import Data
from stresslens.core.errors import ConfigError, first_line
from stresslens.core.outputs import hook_logits
from stresslens.training.fine_tuning import FineTuning
from stresslens.training.setup import images_to_check

TRIED = 2
"""The most images that are tried; all larger batches are alike."""


def check_first_batch(model: nn.Module, train: Train, data: Data) -> None:
    """Passes the first images through a model (a net behind its input layers) in training mode, as
    many as the smallest batch has, with the layers frozen that `train.fine_tune` freezes.

    A net that also returns the logits of auxiliary heads returns its logits alone from here on
    (`core.outputs`). Raises ConfigError for a net that fails, as batch norm does for a single image,
    and for one that does not return logits.
    """
    if any(isinstance(module, nn.SyncBatchNorm) for module in model.modules()):
        return  # several processes, each with a part of the batch
    images = len(data.train)
    size = images if train.batch_size == "full" else min(train.batch_size, images)
    x = images_to_check(model, data)[:TRIED]
    smallest = (images - 1) % size + 1
    with unchanged(model), torch.no_grad():
        FineTuning(model, train.fine_tune or FineTune(), data.shape).begin(train.epochs - 1)
        failure = _failure(model, x[:smallest], len(data.classes))
        only_alone = failure and smallest < len(x) and not _failure(model, x, len(data.classes))
    name = type(model.get_submodule("net")).__name__
    if only_alone:
        larger = next((k for k in range(size + 1, images) if (images - 1) % k), images)
        raise ConfigError(
            f"{name} cannot train on a batch of one image, which {images} images in batches of {size} "
            f"leave ({failure}); set train.batch_size to {larger}, keep the statistics of batch norm "
            "(train.fine_tune: {batch_norm: keep}), or use group norm in the net"
        )
    if failure:
        raise ConfigError(
            f"{name} cannot be trained: in training mode, for {len(x[:smallest])} images, {failure}"
        )


def _failure(model: nn.Module, x: Tensor, classes: int) -> str:
    """Why the model has no logits for images x, in words; empty if it has."""
    try:
        output = model(x.clone())
        if not isinstance(output, Tensor):
            hook_logits(model.get_submodule("net"))
            output = model(x.clone())
    except ConfigError:
        raise
    except Exception as error:  # a user's module may raise anything
        return first_line(error)
    if output.shape != (len(x), classes):
        return f"it returns shape {tuple(output.shape)}; expected logits ({len(x)}, {classes})"
    return ""
