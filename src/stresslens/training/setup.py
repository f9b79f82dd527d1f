"""Builds the model that a task trains, with the weights it begins with."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from stresslens.config import registry
from stresslens.config.schema import Input
from stresslens.config.validation import depends_on
from stresslens.core import layers
from stresslens.core.data import Data, Split
from stresslens.core.errors import ConfigError, StresslensError
from stresslens.core.pretrained import LoadReport, Preprocessing, PretrainedWeights
from stresslens.core.types import Finding
from stresslens.evaluation.finished_run import data_of
from stresslens.evaluation.record import read_record
from stresslens.evaluation.saved_model import net_from
from stresslens.training import initial_weights
from stresslens.training.task import Task, other_run


def build_model(task: Task, data: Data) -> nn.Sequential:
    """The net, initialised from the task's seed, behind its input layers. Raises ConfigError when
    it cannot take the images.

    The weights that the recipe begins with are not in it yet (`begin`), but its input layers are theirs.
    """
    origin = initial_weights_of(task)
    size, normalize, interpolation = _input(
        task.config.input, data.train, origin.preprocessing if origin else None
    )
    torch.manual_seed(task.seed)
    if task.module is not None:
        net, name = task.module, type(task.module).__name__
    else:
        name = registry.name_and_options("models", task.config.model)[0]
        height, width = size or data.shape[1:]
        net = net_from(
            task.config.model, (len(normalize.gain), height, width), data.classes, data.train, task.base
        )
    model = layers.with_input_layers(net, normalize, size, interpolation)
    layers.check_output(model, data.shape, len(data.classes), name)
    return model


def initial_weights_of(task: Task) -> PretrainedWeights | None:
    """The weights that the task's net begins with, if not with random ones. Raises ConfigError
    where a run has none."""
    if task.module is not None or task.config.estimator is not None:
        return None
    named = dict(depends_on(task.config)).get("weights")
    return initial_weights.published(
        task.config.model, other_run(task, named, "weights") if named else None, base=task.base
    )


def load_initial_weights(task: Task, data: Data, model: nn.Module) -> LoadReport | None:
    """Gives a fresh model the weights it begins with, and tells what became of each."""
    origin = initial_weights_of(task)
    if origin is None:
        return None
    if task.config.train.probed:
        origin = replace(origin, head="new")
    return initial_weights.begin_with(model, origin, data.shape, data.classes)


def leak(task: Task, data: Data) -> Finding | None:
    """A finding where the run whose weights the task begins with was trained on images that are
    test images here, as in another division of the same data set."""
    name = dict(depends_on(task.config)).get("weights")
    if name is None or data.test is None:
        return None
    run = other_run(task, name, "weights")
    if not run.record.is_file():  # an exported folder
        return None
    known = read_record(run).data
    if known.name != data.name or known.splits.get("test") == data.test.fingerprint:
        return None
    try:
        seen = initial_weights.known_images(data.test, data_of(run, trust=True).train)
    except StresslensError:  # the caller's own data, or no longer there
        return None
    evidence = f"{seen} of {len(data.test)} test images are training images of {name}, whose weights the run began with"
    remedy = "divide the data the same way in both, or take weights that were trained on other images"
    return Finding("trained on before", "sign", "serious", evidence, len(data.test), remedy) if seen else None


def _input(
    inputs: Input, train: Split, known: Preprocessing | None
) -> tuple[tuple[int, int] | None, layers.Normalize, layers.Interpolation]:
    """The size that images are resized to (None: as they are), normalising and interpolation;
    `known` is the weights' own way."""
    size = (inputs.size, inputs.size) if isinstance(inputs.size, int) else inputs.size
    if size == "auto":
        size = known.shape[1:] if known is not None else None
    if size == train.shape[1:]:
        size = None
    interpolation = inputs.interpolation
    if interpolation == "auto":
        interpolation = known.interpolation if known is not None else "bilinear"
    return size, _normalization(inputs, train, known), interpolation


def _normalization(inputs: Input, train: Split, known: Preprocessing | None) -> layers.Normalize:
    how = inputs.normalize
    channels = train.shape[0]
    if how == "auto" and known is not None and channels in (1, len(known.normalize.gain)):
        return known.normalize  # grey images become as many channels alike as the weights saw
    if isinstance(how, str):
        return layers.Normalize.fitted(train, "standard" if how == "auto" else how)
    if not len(how.mean) == len(how.std) == channels:
        raise ConfigError(
            f"input.normalize: {len(how.mean)} means and {len(how.std)} deviations for images of {channels} channels"
        )
    return layers.Normalize.by_moments(how.mean, how.std)
