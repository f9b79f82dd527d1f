"""What batches are made of and what their loss is: put together once, before the loop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stresslens.config import registry
from stresslens.config.schema import Train
from stresslens.config.validation import objective_of
from stresslens.core import layers
from stresslens.core.data import RESIDENT_BYTES, Batch, Split
from stresslens.core.devices import ComputeConfig
from stresslens.core.draws import Draws
from stresslens.core.errors import ConfigError
from stresslens.core.types import Augmentation, Loss, Step

LossOf = Callable[[Batch], Tensor]


def augmentation(value: Any, *, base: Path, classes: int) -> Augmentation:
    """An augmentation by its name and options. Raises ConfigError when it returns anything but
    images and labels."""
    bound = registry.resolve("augmentations", value, base=base)

    def augmented(x: Tensor, y: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        result = bound(x=x, y=y, draws=draws, classes=classes)
        if not (isinstance(result, tuple) and len(result) == 2 and len(result[0]) == len(x)):
            raise ConfigError(
                f"the augmentation {value!r} returned {result!r:.60}; expected images and labels (x, y)"
            )
        return result

    return augmented


def objective_for(train: Train, labels: Tensor, *, base: Path, classes: int) -> registry.Bound:
    """The recipe's objective; with `balance: weights` its loss weighs each image by the rarity of
    its class among `labels`."""
    objective = registry.resolve("objectives", objective_of(train), base=base)
    if train.balance != "weights":
        return objective
    loss = objective.options.get("loss")
    if not callable(loss):
        name = registry.name_and_options("objectives", train.objective)[0]
        raise ConfigError(
            f"balance: weights needs an objective that takes a loss, which {name} does not; use balance: sampling"
        )
    weighted_loss = weighted(loss, class_weights(labels, classes))
    return replace(objective, options={**objective.options, "loss": weighted_loss})


def class_weights(labels: Tensor, classes: int) -> Tensor:
    """(classes,) n/(K n_k) for class k of K present ones: every class weighs the same, an image 1
    on average."""
    counts = labels.bincount(minlength=classes)
    return len(labels) / (counts.clamp_min(1) * (counts > 0).sum())


def weighted(loss: Loss, weights: Tensor) -> Loss:
    """The mean over images of the loss of each times the weight of its class; for mixed labels the
    mixture of their weights."""
    each = torch.func.vmap(lambda logits, y: loss(logits=logits[None], y=y[None]))

    def of_batch(logits: Tensor, y: Tensor) -> Tensor:
        own = weights.to(logits.device)
        return (each(logits, y) * (own[y] if y.ndim == 1 else y @ own)).mean()

    return of_batch


def prepared(
    model: nn.Module,
    train: Split,
    objective: registry.Bound,
    *,
    compute: ComputeConfig,
    augmented: bool,
    step: Callable[[Tensor], Step],
) -> tuple[Split, LossOf]:
    """The images that batches are made of, and the loss of a batch.

    Where nothing changes an image before the net, resizing and normalising give the same in every
    epoch: then they are done once, if the result is small, and batches hold the net's inputs. That
    takes an objective that asks for nothing else.
    """
    front, net = layers.input_layers(model), model.get_submodule("net")
    ask = {need: objective.asks_for(need) for need in registry.VOCABULARY["objectives"]}

    def of_inputs(batch: Batch) -> Tensor:
        now = step(batch.places) if ask["step"] else None
        loss: Tensor = objective(y=batch.y, step=now, net=net, inputs=batch.x)
        return loss

    def of_images(batch: Batch) -> Tensor:
        inputs = front(batch.x) if ask["inputs"] else None
        now = step(batch.places) if ask["step"] else None
        loss: Tensor = objective(model=model, x=batch.x, y=batch.y, step=now, net=net, inputs=inputs)
        return loss

    def narrowed(loss_of: LossOf) -> LossOf:
        def loss_in_bfloat16(batch: Batch) -> Tensor:
            with compute.autocast():
                return loss_of(batch)

        return loss_in_bfloat16 if compute.precision == "bfloat16" else loss_of

    with torch.no_grad():
        pixels = front(next(train.batches(1, dtype=compute.dtype)).x).numel()
        if augmented or ask["model"] or ask["x"] or pixels * len(train) * 4 > RESIDENT_BYTES:
            return train, narrowed(of_images)
        inputs = torch.cat([front(batch.x) for batch in train.batches(1024, dtype=compute.dtype)])
    return Split(inputs, train.labels, 1.0), narrowed(of_inputs)
