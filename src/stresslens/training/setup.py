"""Training setup: builds the model of a task and loads its initial weights."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from stresslens.config import registry
from stresslens.config.ensembles import is_soup
from stresslens.config.schema import Input
from stresslens.config.validation import depends_on
from stresslens.core import layers
from stresslens.core.copies import CHECKED, check_copy, copied, departure, responses, unchanged
from stresslens.core.cropped_kernels import crop_kernels
from stresslens.core.data import Data, Split
from stresslens.core.devices import ComputeConfig
from stresslens.core.dtypes import as_input, float_dtypes
from stresslens.core.ensembles import Ensemble
from stresslens.core.errors import ConfigError, Notice, StresslensError, first_line
from stresslens.core.inspection import evaluating
from stresslens.core.pool_order import pool_first, pool_last, pools
from stresslens.core.pretrained import LoadReport, Preprocessing
from stresslens.core.run_folder import RunFolder
from stresslens.core.types import Finding
from stresslens.evaluation.finished_run import data_of
from stresslens.evaluation.record import read_record
from stresslens.evaluation.saved_model import net_from
from stresslens.training import initial_weights
from stresslens.training.input_sizes import InputSizes, shown_size
from stresslens.training.members import open_members, temperatures_of
from stresslens.training.soups import all_members_averaged
from stresslens.training.task import Task, other_run


def build_model(task: Task, data: Data) -> nn.Sequential:
    """The net, initialised from the task's seed, behind its input layers. Raises ConfigError where
    it does not accept the images.

    Pretrained weights are not loaded yet (`load_initial_weights`), but the input layers already do
    the preprocessing that the weights were trained with. A soup is the mean of all its members, behind
    their input layers.
    """
    if is_soup(task.config):
        return all_members_averaged(task, data)
    origin = task.plan.initial_weights
    known = (origin.preprocessing if origin else None) or _own_preprocessing(task, data)
    front = InputSizes.of(task.config.input, data.shape, known, shown_size(task.config.train, task.base))
    normalize = _normalization(task.config.input, data.train, known)
    if normalize.gain.shape[1:] not in ((1, 1), front.seen):
        raise ConfigError(
            f"input.normalize: pixel_minmax scales each pixel of {data.shape[1]}×{data.shape[2]} by itself, "
            f"and the net sees {front.seen[0]}×{front.seen[1]}; use standard"
        )
    torch.manual_seed(task.seed)
    if task.module is not None:
        net, name = copied(task.module), type(task.module).__name__
    else:
        name = registry.name_and_options("models", task.config.model)[0]
        shape = (len(normalize.gain), *front.seen)
        members = open_members(task.plan.members, data, task.folder.parent.parent)
        net = net_from(task.config.model, shape, data.classes, data.train, task.base, members=members)
        if isinstance(net, Ensemble):
            net.temperatures.copy_(torch.tensor(temperatures_of(task.plan.members)))
    model = front.before(net, normalize)
    if task.module is not None:
        with torch.no_grad():
            inputs = layers.input_layers(model)(_first_images(data))
        check_copy(task.module, net, as_input(inputs, net))
    before = float_dtypes(net)
    layers.settle_dtypes(model, data.shape)
    if float_dtypes(net) != before:
        name = f"{name}, with all weights in float32 for training,"
    layers.check_output(model, data.shape, len(data.classes), name)
    return model


def _own_preprocessing(task: Task, data: Data) -> Preprocessing | None:
    """The preprocessing that a model was made for, if its own file says it."""
    if task.module is not None:
        return None
    bound = registry.resolve("models", task.config.model, path=("model",), base=task.base)
    found: Preprocessing | None = bound.answer_beside("own_preprocessing", shape=data.shape)
    return found


def images_to_check(model: nn.Module, data: Data) -> Tensor:
    """(n, C, H, W) the first training images, on which copies of a model are compared with it."""
    return as_input(_first_images(data), model)


def _first_images(data: Data) -> Tensor:
    images = data.train.select(torch.arange(min(CHECKED, len(data.train))))
    return images.floats(images.images[:])


def laid_out(model: nn.Module, compute: ComputeConfig, data: Data) -> nn.Module:
    """The model on its device, in its precision and memory format, pooling before ReLU
    (`pool_first`), and without what sees only padding (`crop_kernels`).

    Pooling and the memory format are compared with the plain model on a few training images. Pooling
    is then left as it is, with a Notice. Raises ConfigError if the memory format makes the difference.
    """
    model = replace(compute, memory_format="contiguous").place(model)
    x = images_to_check(model, data)
    with unchanged(model):
        crop_kernels(model, x)
    if pools(model):
        expected = responses(model, x)
        changed = pool_first(model)
        if what := departure(expected, responses(model, x)):
            pool_last(changed)
            warnings.warn(f"max pooling stays behind ReLU, because {what} before it", Notice, stacklevel=2)
    if compute.memory_format == "contiguous":
        return model
    with evaluating(model):
        expected = responses(model, x)
    model, x = compute.place(model), x.contiguous(memory_format=torch.channels_last)
    try:
        responses(model, x)  # in training mode, rounding may be large
        with evaluating(model):
            what = departure(expected, responses(model, x))
    except RuntimeError as error:
        what = first_line(error)
    if what:
        raise ConfigError(
            f"train.memory_format: channels_last: the net computes something else in this memory format "
            f"({what}); use contiguous, or .flatten(1) or .reshape instead of .view in the net"
        )
    return model


def load_initial_weights(task: Task, data: Data, model: nn.Module) -> LoadReport | None:
    """Loads the initial weights into a new model and reports what happened to each tensor; None
    where there are none."""
    origin = task.plan.initial_weights
    if origin is None:
        return None
    if task.config.train.probed:
        origin = replace(origin, head="new")
    return initial_weights.begin_with(model, origin, data.shape, data.classes)


def origin_leaks(task: Task, data: Data) -> list[Finding]:
    """A finding for each of the initial weights and the teacher that come from a run which was trained on
    test or validation images of this task, as happens with another split of the same data set. Of an
    ensemble or a soup the members count."""
    provided = {"weights": "which provided the initial weights", "teacher": "the teacher"}
    held_out = {name: split for name, split in data.splits.items() if name != "train"}
    findings = []
    for what, name in depends_on(task.config):
        for run in _members(other_run(task, name, what)) if what in provided else ():
            source = name if run.path.parent.name == name else f"{run.path}, of {name}"
            for split, seen in _seen_in_training(run, held_out, data).items():
                findings.append(_leak(seen, len(held_out[split]), f"{source}, {provided[what]}", split))
    return findings


def _members(run: RunFolder) -> list[RunFolder]:
    """The runs that an ensemble or a soup is made of, as far as they are still there; another run itself."""
    made_of = read_record(run).ensemble if run.record.is_file() else None
    folders = [RunFolder(Path(member.folder)) for member in made_of.members] if made_of else [run]
    return [folder for folder in folders if folder.record.is_file()]


def member_leaks(members: Sequence[RunFolder], data: Data, whole: str) -> list[Finding]:
    """A finding for each member of an ensemble or a soup (`whole`) that was trained on test images of the
    data, beside those that have a copy among the training images of the data themselves.

    Raises ConfigError where a member was trained on validation or calibration images: they fit the
    temperature, calibrate sets and thresholds, and choose the members of a greedy soup.
    """
    held_out = {name: split for name, split in data.splits.items() if name != "train"}
    findings = []
    for run in members:
        for name, seen in _seen_in_training(run, held_out, data).items():
            split = held_out[name]
            if seen <= initial_weights.known_images(split, data.train):
                continue
            if name != "test":
                raise ConfigError(
                    f"runs: {seen} of the {len(split)} {name} images are training images of {run.path}; make "
                    "members of the same division of the data"
                )
            findings.append(_leak(seen, len(split), f"{run.path}, a member of the {whole}"))
    return findings


def _seen_in_training(run: RunFolder, splits: Mapping[str, Split], data: Data) -> dict[str, int]:
    """How many images of each of these splits of the data a run was trained on, without the splits that it
    held out itself; nothing where its training images are not known, or are those of the data."""
    if not run.record.is_file():  # an exported folder
        return {}
    known = read_record(run).data
    if known.name != data.name or known.splits.get("train") == data.train.fingerprint:
        return {}
    others = {name: split for name, split in splits.items() if known.splits.get(name) != split.fingerprint}
    try:
        train = data_of(run, trust=True).train if others else None
    except StresslensError:  # data that the caller passed, or that no longer exists
        return {}
    if train is None:
        return {}
    counts = {name: initial_weights.known_images(split, train) for name, split in others.items()}
    return {name: seen for name, seen in counts.items() if seen}


def _leak(seen: int, of: int, source: str, split: str = "test") -> Finding:
    """Validation images choose the epoch and fit the temperature; only the test images are the result."""
    evidence = f"{seen} of {of} {split} images are training images of {source}"
    remedy = "split the data the same way in both runs, or use weights that were trained on other images"
    severity: Literal["serious", "minor"] = "serious" if split == "test" else "minor"
    return Finding("trained on before", "sign", severity, evidence, of, remedy)


def _normalization(inputs: Input, train: Split, known: Preprocessing | None) -> layers.Normalize:
    """The normalisation layer. Raises ConfigError where the number of means or deviations is not
    the number of channels."""
    normalize = inputs.normalize
    channels = train.shape[0]
    if normalize == "auto" and known is not None and channels in (1, len(known.normalize.gain)):
        return known.normalize  # grey images are repeated to the channels of the weights
    if isinstance(normalize, str):
        return layers.Normalize.fitted(train, "standard" if normalize == "auto" else normalize)
    if not len(normalize.mean) == len(normalize.std) == channels:
        raise ConfigError(
            f"input.normalize: {len(normalize.mean)} means and {len(normalize.std)} deviations "
            f"for images of {channels} channels"
        )
    return layers.Normalize.by_moments(normalize.mean, normalize.std)
