"""What a net begins with: weights another run has learned, a file's, or those its own library publishes."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from stresslens.config import registry
from stresslens.core import inspection, layers
from stresslens.core.data import Split
from stresslens.core.errors import ConfigError
from stresslens.core.pretrained import (
    LoadReport,
    Preprocessing,
    PretrainedWeights,
    WeightsRef,
    load_into,
    read_state,
)
from stresslens.core.run_folder import EstimatorCard, ModelCard, RunFolder
from stresslens.core.types import Shape


def published(
    model: Any, run: RunFolder | None, *, base: Path, trust: bool = True
) -> PretrainedWeights | None:
    """The weights that a model's plain value asks for; `run` is the folder that `weights: {run: …}` means.

    Nothing is loaded yet. Raises ConfigError for what cannot be named so.
    """
    begin = registry.initial_weights(model, base=base, trust=trust)
    if begin is None:
        return None
    if not isinstance(begin, WeightsRef):
        found: PretrainedWeights | None = begin()
        return found
    if begin.run is not None:
        assert run is not None
        card = run.load_card()
        if isinstance(card, EstimatorCard):
            raise ConfigError(f"weights: {run.path} holds an estimator, which has no weights to begin with")
        return replace(_of_file(run.weights, card, f"the run {begin.run}"), head=begin.head)
    file = Path(begin.file or "").expanduser()
    beside = RunFolder(file.parent)
    if file.name == beside.weights.name and beside.card.is_file():
        return replace(_of_file(file, beside.load_card(), file.name), head=begin.head)
    known = registry.default_preprocessing(model, base=base, trust=trust)
    return replace(
        _of_file(file, None, file.name), preprocessing=known() if known is not None else None, head=begin.head
    )


def begin_with(
    model: nn.Module, origin: PretrainedWeights, shape: Shape, classes: tuple[str, ...]
) -> LoadReport:
    """Loads the weights into a model's net. `shape` is that of the images; the last layer is kept
    where it is for these classes.

    Raises DataError where the weights cannot be had and ConfigError where they are of another architecture.
    """
    head, same = origin.head, origin.classes is None or origin.classes == classes
    last = inspection.last_layer(model, shape)
    if head != "auto" and not last:
        raise ConfigError(f"weights: head: {head}: this net has no last layer of its own; leave `head` out")
    net, keep = model.get_submodule("net"), head == "kept" or (head == "auto" and same)
    return load_into(net, origin.load(), origin.source, head=last, keep_head=keep, must_keep=head == "kept")


def known_images(test: Split, train: Split) -> int:
    """How many of the test images stand, pixel for pixel, among the training images."""
    if test.shape != train.shape or test.images.dtype != train.images.dtype:
        return 0
    seen = {hash(image.numpy().tobytes()) for piece in train.pieces() for image in piece.cpu()}
    return sum(hash(image.numpy().tobytes()) in seen for piece in test.pieces() for image in piece.cpu())


def _of_file(file: Path, card: ModelCard | EstimatorCard | None, source: str) -> PretrainedWeights:
    known = card if isinstance(card, ModelCard) else None
    if known is None:
        return PretrainedWeights(source, lambda: read_state(file), digest=_digest(file))
    gain, shift = (torch.tensor(values, dtype=torch.float32) for values in (known.gain, known.shift))
    seen = Preprocessing(known.seen, layers.Normalize(gain, shift), known.interpolation)
    return PretrainedWeights(source, lambda: read_state(file), seen, tuple(known.classes), _digest(file))


def _digest(file: Path) -> str:
    try:
        facts = file.stat()
        return _digest_of(file, facts.st_mtime_ns, facts.st_size)
    except OSError as error:
        raise ConfigError(f"weights: {file} cannot be read ({error.strerror})") from None


@lru_cache(maxsize=64)
def _digest_of(file: Path, changed: int, size: int) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()[:16]
