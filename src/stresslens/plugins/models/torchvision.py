from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import nn

from stresslens.core.errors import ConfigError
from stresslens.core.layers import Normalize
from stresslens.core.pretrained import Preprocessing, PretrainedWeights, State, unavailable
from stresslens.core.spelling import closest
from stresslens.core.torchvision_compat import torchvision as library
from stresslens.core.types import Shape
from stresslens.plugins.models._stem import Stem, small, with_channels

_OLD_KEY = re.compile(r"^(.*denselayer\d+\.(?:norm|conv))\.([12]\.\w+)$")
"""Keys of the published DenseNets, whose layers had other names (norm.1 is norm1 now)."""


def torchvision(shape: Shape, classes: int, *, name: str, stem: Stem = "published") -> nn.Module:
    """A classifier of torchvision by its `name` (resnet50, convnext_tiny, …), with a new last
    layer.

    `weights` are torchvision's by name (IMAGENET1K_V2, DEFAULT), or {file: PATH}, or {run: NAME}.
    Images are then preprocessed as in the training of these weights, unless `input` says otherwise.
    Auxiliary heads are left out. `stem: small`, for residual networks on images of about 32×32, is
    a 3×3 convolution with stride 1, without pooling. Raises ConfigError for an unknown name, and
    ValueError if a stem or an image size does not fit the network.
    """
    channels, height, width = shape
    _check(name)
    options: dict[str, Any] = {}
    if name in ("googlenet", "inception_v3"):
        options = {"aux_logits": False, "init_weights": True}
    if name.startswith("vit_"):
        if height != width:
            raise ValueError(
                f"{name} needs square images; got {height}×{width} "
                f"(set `input: {{size: {max(height, width)}}}`)"
            )
        options = {"image_size": height}
    net: nn.Module = library().models.get_model(name, weights=None, num_classes=classes, **options)
    with_channels(net, channels)
    if stem == "small":
        small(net, name)
    return net


def published(*, name: str, weights: str | None = None) -> PretrainedWeights | None:
    """torchvision's published weights of this name, if one is given."""
    if weights is None:
        return None
    _check(name)
    known = library().models.get_model_weights(name)
    if weights not in known.__members__:
        raise ConfigError(
            f"torchvision publishes no weights {weights!r} for {name}; "
            f"{closest(weights, list(known.__members__))}"
        )
    entry = known[weights]
    transforms = entry.transforms()
    (size,) = transforms.crop_size
    mean, std = transforms.mean, transforms.std
    if name in ("googlenet", "inception_v3"):
        # these weights come with transform_input=True: the net undoes this normalisation, for its own
        mean = std = [0.5, 0.5, 0.5]
    normalize = Normalize.by_moments(mean, std)
    crop = size / transforms.resize_size[0]
    preprocessing = Preprocessing((3, size, size), normalize, transforms.interpolation.value, crop)
    source = f"torchvision {name} {entry.name}"

    def load() -> State:
        try:
            state: State = entry.get_state_dict(progress=False, check_hash=True, weights_only=True)
        except Exception as error:
            raise unavailable(
                source, Path(torch.hub.get_dir()) / "checkpoints" / Path(entry.url).name, error
            ) from error
        return {_OLD_KEY.sub(r"\1\2", key): value for key, value in state.items()}

    return PretrainedWeights(source, load, preprocessing)


def default_preprocessing(*, name: str) -> Preprocessing | None:
    """The preprocessing of the network's default weights."""
    weights = published(name=name, weights="DEFAULT")
    return weights.preprocessing if weights else None


def catalogue() -> dict[str, dict[str, dict[str, Any]]]:
    """Every classifier of torchvision, with its published weights, the default first, and the options
    that select them."""
    zoo = library().models
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for name in zoo.list_models(module=zoo):
        weights = zoo.get_model_weights(name)
        default = getattr(weights, "DEFAULT", None)
        entries = [*([default] if default else []), *(each for each in weights if each is not default)]
        found[name] = {entry.name: {"name": name, "weights": entry.name} for entry in entries}
    return found


def _check(name: str) -> None:
    zoo = library().models
    known = zoo.list_models(module=zoo)
    if name not in known:
        raise ConfigError(f"torchvision has no classifier called {name!r}; {closest(name, known)}")
