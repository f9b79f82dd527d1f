"""Initial weights of a net: those of another run, of a file, or published by the model's library."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stresslens.config.published_weights import default_preprocessing, initial_weights
from stresslens.core import inspection, layers
from stresslens.core.center_crop import share_of
from stresslens.core.data import Split
from stresslens.core.errors import ConfigError
from stresslens.core.files import digest_of_file
from stresslens.core.pretrained import (
    LoadReport,
    Preprocessing,
    PretrainedWeights,
    WeightsRef,
    load_into,
)
from stresslens.core.run_folder import EstimatorCard, ModelCard, RunFolder
from stresslens.core.types import Shape
from stresslens.core.weights_file import read_state


def published(
    model: Any, run: RunFolder | None, *, base: Path, trust: bool = True
) -> PretrainedWeights | None:
    """The initial weights that a model's plain value names; `run` is the folder of `weights: {run: …}`.

    Nothing is loaded yet. Raises ConfigError for a run without weights or a file that cannot be read.
    """
    reference = initial_weights(model, base=base, trust=trust)
    if reference is None:
        return None
    if not isinstance(reference, WeightsRef):
        weights: PretrainedWeights | None = reference()
        return weights
    if reference.run is not None:
        assert run is not None
        card = run.load_card()
        if isinstance(card, EstimatorCard):
            raise ConfigError(f"weights: {run.path} holds an estimator, which has no weights to start from")
        run.check_weights()
        return replace(_of_file(run.weights, card, f"the run {reference.run}"), head=reference.head)
    file = Path(reference.file or "").expanduser()
    folder = RunFolder(file.parent)
    if file.name == folder.weights.name and folder.card.is_file():
        folder.check_weights()
        return replace(_of_file(file, folder.load_card(), file.name), head=reference.head)
    default = default_preprocessing(model, base=base, trust=trust)
    preprocessing = default() if default is not None else None
    return replace(_of_file(file, None, file.name), preprocessing=preprocessing, head=reference.head)


def begin_with(
    model: nn.Module, origin: PretrainedWeights, shape: Shape, classes: tuple[str, ...]
) -> LoadReport:
    """Loads the weights into a model's net. `shape` is that of the images; the weights of the last
    layer are kept where they are for these classes.

    Raises DataError where the weights are not available, and ConfigError where they belong to
    another architecture.
    """
    head, same = origin.head, origin.classes is None or origin.classes == classes
    last = inspection.classifier_layers(model, shape)
    if head != "auto" and not last:
        raise ConfigError(f"weights: head: {head}: this net has no last layer of its own; leave `head` out")
    net, keep = model.get_submodule("net"), head == "kept" or (head == "auto" and same)
    state = origin.load()
    if origin.preprocessing is None:
        _check_normalisation(model, state, origin.source)
    return load_into(
        net,
        state,
        origin.source,
        head=last,
        keep_head=keep,
        must_keep=head == "kept",
        shape=layers.shape_seen(model, shape),
        made_for=origin.preprocessing.shape if origin.preprocessing else None,
    )


MEANS, DEVIATIONS = ("mu", "mean"), ("sigma", "std")
"""Names of the tensors of a normalisation inside a checkpoint, as RobustBench's models have it."""


def _check_normalisation(model: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Raises ConfigError where weights hold the normalisation that they were trained with, and the model
    has another one."""
    outside = {
        name: value for name, value in state.items() if name not in model.get_submodule("net").state_dict()
    }
    by_word = {name.rpartition(".")[2]: value.flatten().float() for name, value in outside.items()}
    mean, std = (next((by_word[k] for k in words if k in by_word), None) for words in (MEANS, DEVIATIONS))
    normalize = dict(model.named_children()).get("normalize")
    if mean is None or std is None or not isinstance(normalize, layers.Normalize):
        return
    wanted = layers.Normalize.by_moments(mean.tolist(), std.tolist())
    if wanted.gain.shape != normalize.gain.shape:
        return
    same = torch.allclose(wanted.gain, normalize.gain, rtol=1e-3)
    if same and torch.allclose(wanted.shift, normalize.shift, rtol=1e-3, atol=1e-3):
        return
    numbers = [", ".join(f"{float(value):.4g}" for value in values) for values in (mean, std)]
    raise ConfigError(
        f"{source}: the weights hold the normalisation that they were trained with; give it: "
        f"input.normalize={{mean: [{numbers[0]}], std: [{numbers[1]}]}}"
    )


def known_images(test: Split, train: Split) -> int:
    """The number of test images that are also training images, pixel for pixel."""
    if test.shape != train.shape or test.images.dtype != train.images.dtype:
        return 0
    seen = {hash(image.numpy().tobytes()) for piece in train.pieces() for image in piece.cpu()}
    return sum(hash(image.numpy().tobytes()) in seen for piece in test.pieces() for image in piece.cpu())


def _of_file(file: Path, card: ModelCard | EstimatorCard | None, source: str) -> PretrainedWeights:
    """The weights in a file, with preprocessing and classes where a model card describes them."""
    if not isinstance(card, ModelCard):
        return PretrainedWeights(source, lambda: read_state(file), digest=_digest(file))
    gain, shift = (torch.tensor(values, dtype=torch.float32) for values in (card.gain, card.shift))
    crop = share_of(card.crop, card.size or card.shape[1:]) if card.crop else None
    normalize = layers.Normalize(gain, shift)
    preprocessing = Preprocessing(card.seen, normalize, card.interpolation, crop, crop is not None)
    return PretrainedWeights(
        source, lambda: read_state(file), preprocessing, tuple(card.classes), _digest(file)
    )


def _digest(file: Path) -> str:
    try:
        return digest_of_file(file)[:16]
    except OSError as error:
        raise ConfigError(f"weights: {file} cannot be read ({error.strerror})") from None
