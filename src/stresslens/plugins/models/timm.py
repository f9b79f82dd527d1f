from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from stresslens.core.errors import ConfigError
from stresslens.core.extras import extra
from stresslens.core.layers import Interpolation, Normalize
from stresslens.core.pretrained import Preprocessing, PretrainedWeights, State, from_hub, unavailable
from stresslens.core.spelling import closest
from stresslens.core.types import Decay, Shape
from stresslens.plugins.models._stem import Stem, small

EXTRA = "timm"


def timm(
    shape: Shape,
    classes: int,
    *,
    name: str,
    stem: Stem = "published",
    dropout: Decay = 0.0,
    drop_path: Decay = 0.0,
) -> nn.Module:
    """A classifier of timm by its `name` there, with a last layer for these classes.

    The name may contain the tag of its weights (efficientvit_m1.r224_in1k). `pretrained: true`
    starts from the weights of the tag, or else the model's first; `weights: {file: PATH}` or {run:
    NAME} starts from others. Images are then preprocessed as in the training of these weights,
    unless `input` says otherwise. `dropout` is before the last layer; `drop_path` is stochastic
    depth. `stem: small`, for residual networks on images of about 32×32, is a 3×3 convolution with
    stride 1, without pooling. Raises ConfigError for an unknown name, and ValueError if the stem
    does not fit the network.
    """
    channels, *size = shape
    config = _config(name)
    options: dict[str, Any] = (
        {"img_size": tuple(size)} if config.fixed_input_size and tuple(size) != config.input_size[1:] else {}
    )
    if drop_path:
        options["drop_path_rate"] = drop_path
    net: nn.Module = _library().create_model(
        name, num_classes=classes, in_chans=channels, drop_rate=dropout, **options
    )
    if stem == "small":
        small(net, name)
    return net


def published(*, name: str, pretrained: bool = False) -> PretrainedWeights | None:
    """The published weights that `pretrained` selects, if any."""
    if not pretrained:
        return None
    config = _config(name)
    if not config.has_weights:
        raise ConfigError(
            f"timm publishes no weights for {name}; leave `pretrained` out, or give weights: {{file: PATH}}"
        )
    tagged = f"{config.architecture}.{config.tag}" if config.tag else config.architecture
    source = f"timm {tagged}"

    def load() -> State:
        file = Path(torch.hub.get_dir()) / "checkpoints" / Path(config.url).name
        overlay = {}
        if config.hf_hub_id:
            default = ("model.safetensors", "pytorch_model.bin")
            file = from_hub(
                source, config.hf_hub_id, *([config.hf_hub_filename] if config.hf_hub_filename else default)
            )
            overlay = {"file": str(file)}
        try:
            state: State = (
                _library().create_model(tagged, pretrained=True, pretrained_cfg_overlay=overlay).state_dict()
            )
        except Exception as error:
            raise unavailable(source, file, error) from error
        return state

    return PretrainedWeights(source, load, default_preprocessing(name=name))


def default_preprocessing(*, name: str) -> Preprocessing:
    """The preprocessing of the model's published weights."""
    config = _config(name)
    interpolation: Interpolation = "bicubic" if config.interpolation == "bicubic" else "bilinear"
    whole = config.crop_mode == "squash" and config.crop_pct == 1
    return Preprocessing(
        config.input_size,
        Normalize.by_moments(config.mean, config.std),
        interpolation,
        None if whole else config.crop_pct,
    )


def catalogue() -> dict[str, dict[str, dict[str, Any]]]:
    """Every architecture of timm, with the tags of its published weights, the default first, and the
    options that select them."""
    library = _library()
    tags: dict[str, list[str]] = {name: [] for name in library.list_models()}
    for tagged in library.list_pretrained():
        name, _, tag = tagged.partition(".")
        tags.setdefault(name, []).append(tag)
    for name, known in tags.items():
        default = library.get_pretrained_cfg(name).tag if len(known) > 1 else None
        tags[name] = [tag for tag in known if tag == default] + [tag for tag in known if tag != default]
    return {
        name: {tag: {"name": f"{name}.{tag}" if tag else name, "pretrained": True} for tag in known}
        for name, known in tags.items()
    }


def _config(name: str) -> Any:
    library = _library()
    architecture, _, tag = name.partition(".")
    if not library.is_model(architecture):
        raise ConfigError(
            f"timm has no model called {architecture!r}; {closest(architecture, library.list_models())}"
        )
    tags = [known.partition(".")[2] for known in library.list_pretrained(f"{architecture}.*")]
    if tag and tag not in tags:
        raise ConfigError(f"timm has no weights {tag!r} of {architecture}; {closest(tag, tags)}")
    return library.get_pretrained_cfg(name)


def _library() -> Any:
    with extra("timm", "the model timm"):
        import timm as library

    return library
