"""What a net begins with: weights another run has learned, a file's, or those its own library publishes."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import nn

from stresslens import find
from stresslens.core import layers
from stresslens.core.errors import ConfigError
from stresslens.core.pretrained import Account, Origin, Preprocessing, Published, load_into, read_state
from stresslens.core.results import EstimatorCard, ModelCard, RunFolder
from stresslens.core.types import Shape


def published(model: Any, run: RunFolder | None, *, base: Path, trust: bool = True) -> Published | None:
    """The weights that a model's plain value asks for; `run` is the folder that `weights: {run: …}` means.

    Nothing is loaded yet. Raises ConfigError for what cannot be named so.
    """
    asked = find.weights(model, base=base, trust=trust)
    if asked is None:
        return None
    if not isinstance(asked, Origin):
        found: Published | None = asked()
        return found
    if asked.run is not None:
        assert run is not None
        card = run.load_card()
        if isinstance(card, EstimatorCard):
            raise ConfigError(f"weights: {run.path} holds an estimator, which has no weights to begin with")
        return _of_file(run.weights, card, f"the run {asked.run}")
    file = Path(asked.file or "").expanduser()
    beside = RunFolder(file.parent)
    return _of_file(file, beside.load_card() if file.name == beside.weights.name and beside.card.is_file() else None, file.name)


def head_of(model: Any) -> str:
    """What is said of the last layer: new, kept, or auto."""
    _, options = find.named("models", model)
    asked = options.get("weights")
    return str(asked.get("head", "auto")) if isinstance(asked, dict) else "auto"


def begin_with(model: nn.Module, origin: Published, shape: Shape, classes: tuple[str, ...], head: str = "auto") -> Account:
    """Loads the weights into a model's net. `shape` is that of the images; the last layer is kept where it is for these classes.

    Raises DataError where the weights cannot be had and ConfigError where they are of another architecture.
    """
    same = origin.classes is None or origin.classes == classes
    keep = head == "kept" or (head == "auto" and same)
    return load_into(model.get_submodule("net"), origin.load(), origin.source, head=layers.last_layer(model, shape), keep_head=keep)


def _of_file(file: Path, card: ModelCard | EstimatorCard | None, source: str) -> Published:
    known = card if isinstance(card, ModelCard) else None
    if known is None:
        return Published(source, lambda: read_state(file), digest=_digest(file))
    gain, shift = (torch.tensor(values, dtype=torch.float32) for values in (known.gain, known.shift))
    seen = Preprocessing(known.seen, layers.Normalize(gain, shift), known.interpolation)
    return Published(source, lambda: read_state(file), seen, tuple(known.classes), _digest(file))


def _digest(file: Path) -> str:
    try:
        with file.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest()[:16]
    except OSError as error:
        raise ConfigError(f"weights: {file} cannot be read ({error.strerror})") from None
