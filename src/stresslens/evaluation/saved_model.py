"""Loads a trained model from its run folder: weights (safetensors) and model card."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast, get_args

import safetensors.torch
import torch
from torch import Tensor, nn

from stresslens.config import registry
from stresslens.core import layers
from stresslens.core.center_crop import CenterCrop
from stresslens.core.class_names import name_classes
from stresslens.core.compute_choice import usual_format
from stresslens.core.copies import CHECKED, copied, eager_module, usable_module
from stresslens.core.data import Split
from stresslens.core.devices import ComputeConfig, MemoryFormat
from stresslens.core.dtypes import in_dtype
from stresslens.core.errors import ConfigError
from stresslens.core.files import UnreadableRun
from stresslens.core.fitted_classifier import is_classifier, of_classifier
from stresslens.core.foreign_model import ForeignModel, tried
from stresslens.core.image_files import Frame
from stresslens.core.inspection import evaluating, to_evaluation_mode
from stresslens.core.run_folder import Environment, EstimatorCard, ModelCard, RunFolder
from stresslens.core.text import counted
from stresslens.core.weights_file import load_state
from stresslens.evaluation import estimator


def net_from(
    value: Any,
    shape: Any,
    classes: Any,
    train: Split | None,
    base: Path,
    trust: bool = True,
    members: Sequence[nn.Module] = (),
) -> nn.Module:
    """Builds the net that a model plug-in names, for images of `shape`; `members` are the opened models of
    an ensemble.

    Raises ConfigError if the plug-in cannot build it or does not return a torch.nn.Module.
    """
    bound = registry.resolve("models", value, path=("model",), base=base, trust=trust)
    name = registry.name_and_options("models", value)[0]
    try:
        net = bound(shape=shape, classes=len(classes), names=tuple(classes), train=train, members=members)
    except (ValueError, RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"model {name} cannot be built for images of shape {shape} (channels, height, width): {error}"
        ) from error
    if is_classifier(net):
        net = tried(of_classifier(net, classes, what=f"the classifier of {name}"), shape, len(classes))
    elif callable(net) and not isinstance(net, nn.Module | type):
        net = tried(ForeignModel(net, f"the function of {name}", classes=len(classes)), shape, len(classes))
    if not isinstance(net, nn.Module):
        raise ConfigError(
            f"model {name} returned a {type(net).__name__}; expected a torch.nn.Module, a function of "
            "a batch of images, or a fitted classifier"
        )
    if any(nn.parameter.is_lazy(parameter) for parameter in net.parameters()):
        with evaluating(net), torch.no_grad():
            net(torch.zeros(2, *shape))
    return eager_module(net)


def frame_of(folder: RunFolder) -> Frame:
    """How image files are resized and cropped for the run's model.

    Raises DataError if image files cannot have the number of channels that the model takes.
    """
    card = folder.load_card()
    return Frame.of(card.shape, card.fit, folder.path, card.white)


def open_model(folder: RunFolder, *, trust: bool = False, module: nn.Module | None = None) -> nn.Sequential:
    """A run's trained model or estimator: images in [0,1] → logits, in float32, on the CPU, in
    evaluation mode.

    `module` is the architecture if the run was trained on the caller's own module; it is copied.
    Without `trust` only built-in plug-ins are executed. Raises UnreadableRun if a file is missing
    or damaged, or if the files do not belong together.
    """
    card = folder.load_card()
    if isinstance(card, EstimatorCard):
        fitted = nn.Sequential(estimator.open_estimator(folder, card, trust=trust))
        name_classes(fitted, card.classes)
        return fitted
    if isinstance(card.model, str) and card.model.startswith("own module") and module is None:
        raise UnreadableRun(f"{folder.path} was trained on your {card.model}; pass it as `module=`")
    folder.check_weights()
    try:
        state = safetensors.torch.load_file(folder.weights)
    except FileNotFoundError:
        raise UnreadableRun(f"there is no {folder.weights}{_way_out(folder)}") from None
    except Exception as error:
        raise UnreadableRun(f"{folder.weights} cannot be read: {error}{_way_out(folder)}") from error
    try:
        if module is None:
            with torch.device("meta"):  # a damaged card may ask for more memory than there is
                _check_shapes(_net_of(card, folder, trust), state)
            net = _net_of(card, folder, trust)
        else:
            net = copied(eager_module(usable_module(module)))
        load_state(net, state)
        model = _with_input_layers(net, card)
        layers.settle_dtypes(model, card.shape)
        in_dtype(model, torch.float32)
        layers.check_output(model, card.shape, len(card.classes), str(card.model))
    except (RuntimeError, ValueError, TypeError, MemoryError) as error:
        raise UnreadableRun(
            f"{folder.card} and {folder.weights.name} do not belong together: {error}"
        ) from error
    to_evaluation_mode(model)
    name_classes(model, card.classes)
    return model


def _net_of(card: ModelCard, folder: RunFolder, trust: bool) -> nn.Module:
    """The net of a card with random weights, and with the nets of its members."""
    members = []
    for number, each in enumerate(card.members):
        if isinstance(each, EstimatorCard):
            with torch.device("cpu"):  # also while the nets are built without memory
                fitted = estimator.open_estimator(folder.member(number), each, trust=trust)
            members.append(nn.Sequential(fitted))
        else:
            members.append(_with_input_layers(_net_of(each, folder, trust), each))
    return net_from(card.model, card.seen, card.classes, None, folder.path, trust, members)


def _with_input_layers(net: nn.Module, card: ModelCard) -> nn.Sequential:
    """The net behind the input layers of its card."""
    gain, shift = (torch.tensor(values, dtype=torch.float32) for values in (card.gain, card.shift))
    crop = CenterCrop(card.crop, card.size or card.shape[1:]) if card.crop else None
    return layers.with_input_layers(net, layers.Normalize(gain, shift), card.size, card.interpolation, crop)


def _way_out(folder: RunFolder) -> str:
    """What to do about weights that are missing or damaged; empty for an exported folder."""
    again = "which goes on with it, or writes them from its last checkpoint"
    return f"; give the command of the run again, {again}" if folder.record.is_file() else ""


def as_computed(model: nn.Sequential, folder: RunFolder) -> nn.Sequential:
    """The model of a run in the memory format in which the run computed on a CPU, so that it gives
    the same bits as there. Where the folder does not tell (a run on a GPU, an exported folder), in
    the usual format in which it computes the same."""
    try:
        known = Environment.read(folder.environment)
    except UnreadableRun:
        known = Environment()
    if known.device == "cpu" and known.memory_format in get_args(MemoryFormat):
        memory_format = cast(MemoryFormat, known.memory_format)
    else:
        x = torch.rand(CHECKED, *folder.load_card().shape, generator=torch.Generator().manual_seed(0))
        memory_format = usual_format(model, x)
    return ComputeConfig("cpu", "float32", torch.get_num_threads(), memory_format).place(model)  # type: ignore[return-value]


def _check_shapes(net: nn.Module, state: dict[str, Tensor]) -> None:
    """Raises ValueError if the names or shapes of the saved tensors are not those of the net."""
    expected = {name: tuple(value.shape) for name, value in net.state_dict().items()}
    saved = {name: tuple(value.shape) for name, value in state.items()}
    if expected != saved:
        differing = sorted(
            name for name in expected.keys() | saved.keys() if expected.get(name) != saved.get(name)
        )
        name = differing[0]
        raise ValueError(
            f"{counted(len(differing), 'tensor differs', 'tensors differ')}, first {name}: "
            f"{expected.get(name)} by the card, {saved.get(name)} in the file"
        )
