"""The loss of a batch, the inputs that batches are made of, and augmentation with its check."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
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
from stresslens.core.devices import NARROW, ComputeConfig
from stresslens.core.draws import Draws
from stresslens.core.errors import ConfigError
from stresslens.core.types import Augmentation, Loss, Step
from stresslens.training.compiled_net import CompiledNet
from stresslens.training.recomputation import Recomputation


def augmentation(value: Any, *, base: Path, classes: int) -> Augmentation:
    """An augmentation by its name and options. Calling it raises ConfigError when it returns
    anything but images and labels, or images of a size that it does not tell (`shown_size`)."""
    bound = registry.resolve("augmentations", value, base=base)
    size = bound.answer_beside("shown_size")

    def augmented(x: Tensor, y: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        result = bound(x=x, y=y, draws=draws, classes=classes)
        if not (isinstance(result, tuple) and len(result) == 2 and len(result[0]) == len(x)):
            raise ConfigError(
                f"the augmentation {value!r} returned {result!r:.60}; expected images and labels (x, y)"
            )
        if result[0].shape[2:] != (size or x.shape[2:]):
            shapes = ", ".join("×".join(map(str, each.shape[2:])) for each in (x, result[0]))
            raise ConfigError(
                f"the augmentation {value!r} changes the size of images ({shapes}); a function shown_size "
                "beside it must return the new height and width"
            )
        return result

    return augmented


def objective_for(train: Train, labels: Tensor, *, base: Path, classes: int) -> registry.Bound:
    """The objective of a variant; with `balance: weights` its loss weights each image by how rare
    its class is among `labels`. Raises ConfigError for an objective that takes no loss."""
    objective = registry.resolve("objectives", objective_of(train, base), base=base)
    if train.balance != "weights":
        return objective
    loss = objective.options.get("loss")
    if not callable(loss):
        name = registry.name_and_options("objectives", train.objective)[0]
        raise ConfigError(
            f"balance: weights needs an objective that takes a loss, which {name} does not; "
            "use balance: sampling"
        )
    weighted_loss = weighted(loss, class_weights(labels, classes))
    return replace(objective, options={**objective.options, "loss": weighted_loss})


def class_weights(labels: Tensor, classes: int) -> Tensor:
    """(classes,) n/(K n_k) for class k with n_k of the n images, where K classes are present: all
    classes have the same total weight, and an image has weight 1 on average."""
    counts = labels.bincount(minlength=classes)
    return len(labels) / (counts.clamp_min(1) * (counts > 0).sum())


def weighted(loss: Loss, weights: Tensor) -> Loss:
    """The mean over images of each image's loss times the weight of its class; for mixed labels
    (N, classes) the weights are mixed in the same way."""
    of_each_image = torch.func.vmap(lambda logits, y: loss(logits=logits[None], y=y[None]))

    def of_batch(logits: Tensor, y: Tensor) -> Tensor:
        on_device = weights.to(logits.device)
        of_images = on_device[y] if y.ndim == 1 else y @ on_device
        return (of_each_image(logits, y) * of_images).mean()

    return of_batch


class BatchLoss:
    """The loss of a batch: what the objective returns, in the precision of the run.

    `model` is a net behind its input layers for the images of a batch; `step` tells the objective
    how far training has come, for the places of a batch. With `takes_inputs` batches hold the net's
    inputs (`net_inputs`) instead of images. `teacher` is a model that the objective learns from.
    """

    def __init__(
        self,
        model: nn.Module,
        objective: registry.Bound,
        *,
        compute: ComputeConfig,
        step: Callable[[Tensor], Step],
        takes_inputs: bool,
        teacher: nn.Module | None = None,
    ) -> None:
        self.model, self.objective, self.step, self.takes_inputs = model, objective, step, takes_inputs
        self.teacher = teacher
        self.input_layers, self.net = layers.input_layers(model), model.get_submodule("net")
        self.asks_for_inputs = objective.asks_for("inputs")
        self.asks_for_step = objective.asks_for("step")
        self.autocast = compute.autocast if compute.precision in NARROW else nullcontext
        self.scaled = compute.precision == "float16"
        self.passes: Callable[[], AbstractContextManager[None]] = nullcontext
        """A context in which the net's passes are compiled, or keep less."""
        if compute.compile:
            self.passes = CompiledNet(self.net).active
        elif compute.recompute:
            self.passes = Recomputation(self.net).active

    def __call__(self, batch: Batch) -> Tensor:
        """A scalar, the mean over the batch. Raises ConfigError when the objective returns anything
        else."""
        if not len(batch.y):  # a small batch leaves some of many processes without an image
            return torch.zeros((), device=batch.y.device)
        with self.autocast(), self.passes():
            loss = self.objective_value(batch)
        if not isinstance(loss, Tensor) or loss.ndim:
            raise ConfigError(f"the objective or the loss returned {loss!r:.60}; expected a scalar tensor")
        if self.scaled and not loss.requires_grad:
            raise ConfigError(
                "train.precision: float16 scales the loss, and this objective writes its gradients itself; "
                "use float32 or bfloat16"
            )
        return loss

    def objective_value(self, batch: Batch) -> Any:
        """What the objective returns; it is given what it asks for and None for the rest."""
        step = self.step(batch.places) if self.asks_for_step else None
        if self.takes_inputs:
            return self.objective(y=batch.y, step=step, net=self.net, inputs=batch.x)
        inputs = self.input_layers(batch.x) if self.asks_for_inputs else None
        return self.objective(
            model=self.model,
            x=batch.x,
            y=batch.y,
            step=step,
            net=self.net,
            inputs=inputs,
            teacher=self.teacher,
        )


def net_inputs(
    model: nn.Module, train: Split, objective: registry.Bound, *, compute: ComputeConfig, augmented: bool
) -> Split | None:
    """The net's inputs for all training images, resized and normalised once; None where that cannot be.

    It can be where resizing and normalising give the same in every epoch: without augmentation,
    for an objective that asks for neither the model nor the images, and if the result is small
    (`RESIDENT_BYTES`).
    """
    input_layers = layers.input_layers(model)
    with torch.no_grad():
        values = input_layers(next(train.batches(1, dtype=compute.dtype)).x).numel()
        asks_for_images = any(objective.asks_for(need) for need in ("model", "x"))
        if augmented or asks_for_images or values * len(train) * 4 > RESIDENT_BYTES:
            return None
        inputs = torch.cat([input_layers(batch.x) for batch in train.batches(1024, dtype=compute.dtype)])
    return Split(inputs, train.labels, 1.0)
