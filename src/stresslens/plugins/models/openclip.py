from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as checked
from torch import Tensor, nn

from stresslens.core.errors import ConfigError
from stresslens.core.layers import Normalize
from stresslens.core.pretrained import (
    Preprocessing,
    PretrainedWeights,
    State,
    WeightsRef,
    from_hub,
    unavailable,
)
from stresslens.core.spelling import closest
from stresslens.core.types import Count, Shape
from stresslens.plugins.models._stem import with_channels
from stresslens.plugins.models._zero_shot import ZeroShot, open_clip

EXTRA = "clip"
STRICT = ConfigDict(extra="forbid", strict=True)
Templates = Annotated[Sequence[str], Field(min_length=1)]


@checked(frozen=True, config=STRICT)
class Image:
    """A vision transformer of `layers` blocks and square patches of `patch` pixels.

    With four numbers of blocks it is CLIP's ResNet.
    """

    width: Count = 64
    layers: Count | tuple[Count, Count, Count, Count] = 2
    heads: Count = 2
    patch: Count = 4


@checked(frozen=True, config=STRICT)
class Text:
    """A transformer of `layers` blocks over at most `context` tokens."""

    width: Count = 64
    layers: Count = 2
    heads: Count = 2
    context: Annotated[int, Field(ge=3)] = 16


@checked(frozen=True, config=STRICT)
class Layout:
    """The two towers, and `embed`, the size of the features of images and captions."""

    embed: Count = 64
    image: Image = Image()
    text: Text = Text()


def openclip(
    shape: Shape,
    classes: int,
    names: Sequence[str],
    *,
    name: str | None = None,
    layout: Layout | None = None,
    weights: str | None = None,
    head: Literal["text", "linear"] = "text",
    templates: Templates = ("a photo of a {}.",),
    quick_gelu: bool | Literal["matched"] = "matched",
    evaluation: Literal["running", "batch"] = "running",
) -> nn.Module:
    """CLIP (Radford et al. 2021) as a classifier: a net of open_clip, by `name` or a small
    `layout`.

    The tensors keep open_clip's names. `head: text` is zero-shot: a logit is the learned scale
    times the cosine between the image and the class's captions. A class's captions are the
    `templates` with its name for "{}"; their normalised features are averaged and normalised again.
    The text side is encoded once, and again when its weights change. Gradients reach the image, and
    in training mode both towers. `head: linear` is the image tower with a new linear layer. The
    tokenizer ignores case. A vision transformer ignores pixels beyond a multiple of its patch.

    `quick_gelu: matched` is the activation that the published `weights` were trained with. Without
    it, OpenAI's weights give another net (ViT-B-32: .828 on CIFAR-10, published about .90); `false`
    measures this mistake. `evaluation: batch` lets batch norm use the batch's statistics in
    evaluation, like a net that was left in training mode (as open_clip returns them); it is only
    for measuring this mistake. Raises ConfigError for class names whose captions are the same.
    """
    if name is not None and layout is not None:
        raise ConfigError("openclip: give either the name of an architecture or a layout")
    channels, height, width = shape
    settings = _of_layout(layout or Layout(), height, width) if name is None else _settings(name)
    settings["quick_gelu"] = _quick(name, settings, weights) if quick_gelu == "matched" else quick_gelu
    image = settings["vision_cfg"]
    image["image_size"] = _sides(height, width, image)
    net: ZeroShot = _class(settings)(**settings)
    with_channels(net.visual, channels)
    if evaluation == "batch":
        _use_batch_statistics(net.visual)
    if head == "linear":
        return nn.Sequential(OrderedDict(visual=net.visual, head=nn.Linear(settings["embed_dim"], classes)))
    net.architecture = name
    net.tell_apart(names, templates)
    return net


def published(*, name: str | None = None, weights: str | None = None) -> PretrainedWeights | None:
    """Published weights of open_clip for the architecture `name`, by tag (openai,
    laion2b_s34b_b79k, …).

    They are downloaded on first use into the caches of huggingface_hub and open_clip. Raises
    ConfigError for an unknown tag, and DataError if the file cannot be downloaded or read.
    """
    if weights is None:
        return None
    if name is None:
        raise ConfigError(
            f"openclip: weights {weights!r} belong to a named architecture; give `name:` as well"
        )
    settings, known = _settings(name), _tag(name, weights)
    side = settings["vision_cfg"]["image_size"]
    height, width = (side, side) if isinstance(side, int) else side
    interpolation: Literal["bilinear", "bicubic"] = (
        "bilinear" if known["interpolation"] == "bilinear" else "bicubic"
    )
    normalize = Normalize.by_moments(known["mean"], known["std"])
    crop = None if known.get("resize_mode") == "squash" else 1.0
    preprocessing = Preprocessing((3, height, width), normalize, interpolation, crop)
    return PretrainedWeights(f"open_clip {name} {weights}", lambda: _load(name, weights), preprocessing)


def default_preprocessing(*, name: str | None = None) -> Preprocessing | None:
    """The preprocessing of the architecture's published weights, if there are any."""
    tags = _tags(name) if name is not None else []
    weights = published(name=name, weights="openai" if "openai" in tags else tags[0]) if tags else None
    return weights.preprocessing if weights else None


def catalogue() -> dict[str, dict[str, dict[str, Any]]]:
    """Every architecture of open_clip with an image and a text tower, with the tags of its published
    weights and the options that select them."""
    library = open_clip()
    found: dict[str, dict[str, dict[str, Any]]] = {
        name: {} for name in library.list_models() if "multimodal_cfg" not in library.get_model_config(name)
    }
    for name, tag in library.list_pretrained():
        if name in found:
            found[name][tag] = {"name": name, "weights": tag}
    return found


class _BatchStatistics(nn.BatchNorm2d):
    """Batch norm that uses the batch's statistics also in evaluation, without updating running
    ones."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training or x.numel() == x.shape[1]:  # a single value has no variance
            return super().forward(x)
        return F.batch_norm(x, None, None, self.weight, self.bias, True, 0.0, self.eps)


def _settings(name: str) -> dict[str, Any]:
    """open_clip's settings of this architecture."""
    known = open_clip().list_models()
    if name not in known:
        raise ConfigError(f"open_clip has no architecture {name!r}; {closest(name, known)}")
    settings: dict[str, Any] = open_clip().get_model_config(name)
    if "multimodal_cfg" in settings:
        raise ConfigError(
            f"openclip: {name} writes captions (CoCa); only models with just an image and a text tower "
            "are supported"
        )
    settings["vision_cfg"]["timm_model_pretrained"] = settings["text_cfg"]["hf_model_pretrained"] = False
    return settings


def _of_layout(layout: Layout, rows: int, columns: int) -> dict[str, Any]:
    image, text = layout.image, layout.text
    resnet = isinstance(image.layers, tuple)
    attending = {
        "image": (32 * image.width if resnet else image.width, image.heads),
        "text": (text.width, text.heads),
    }
    for tower, (width, heads) in attending.items():
        if width % heads:
            raise ConfigError(f"openclip: {heads} heads do not divide the {tower} tower's width of {width}")
    if not resnet and min(rows, columns) < image.patch:
        raise ValueError(
            f"openclip needs images of at least {image.patch}×{image.patch} pixels, its patch; "
            f"got {rows}×{columns}"
        )
    width, heads = attending["image"]
    of_image = {
        "width": image.width,
        "layers": image.layers,
        "patch_size": image.patch,
        "head_width": width // heads,
    }
    of_text = {
        "width": text.width,
        "layers": text.layers,
        "heads": text.heads,
        "context_length": text.context,
    }
    return {"embed_dim": layout.embed, "vision_cfg": of_image, "text_cfg": of_text}


def _sides(height: int, width: int, image: dict[str, Any]) -> int | tuple[int, int]:
    if not isinstance(image.get("layers"), list | tuple):
        return height, width
    if height != width or height % 32:
        raise ValueError(
            f"CLIP's ResNet takes squares of a multiple of 32 pixels, at least 32×32; "
            f"set input.size; got {height}×{width}"
        )
    return height


def _class(settings: dict[str, Any]) -> type[Any]:
    custom_text = settings.pop("custom_text", False) or "hf_model_name" in settings["text_cfg"]
    return _zero_shot("CustomTextCLIP" if custom_text else "CLIP")


@cache
def _zero_shot(kind: str) -> type[Any]:
    """open_clip's class with `ZeroShot`; its tensors keep their names, so weights are
    exchangeable."""
    return type("ZeroShot", (ZeroShot, getattr(open_clip().model, kind)), {})


def _quick(name: str | None, settings: dict[str, Any], weights: Any) -> bool:
    """Whether the weights were trained with QuickGELU."""
    if name is not None and isinstance(weights, str):
        return bool(_tag(name, weights).get("quick_gelu", settings.get("quick_gelu", False)))
    either = name is not None and any(_tag(name, tag).get("quick_gelu") for tag in _tags(name))
    if isinstance(weights, WeightsRef) and either and not settings.get("quick_gelu"):
        raise ConfigError(
            f"openclip: weights of {name} were trained with QuickGELU (openai) or without it, "
            "and a run or a file does not say which; set quick_gelu: true or false"
        )
    return bool(settings.get("quick_gelu", False))


def _tags(name: str) -> list[str]:
    tags: list[str] = open_clip().list_pretrained_tags_by_model(name)
    return tags


def _tag(name: str, tag: str) -> dict[str, Any]:
    if tag not in _tags(name):
        raise ConfigError(f"open_clip publishes no weights {tag!r} for {name}; {closest(tag, _tags(name))}")
    known: dict[str, Any] = open_clip().get_pretrained_cfg(name, tag)
    return known


def _use_batch_statistics(visual: nn.Module) -> None:
    batch_norms = [module for module in visual.modules() if type(module) is nn.BatchNorm2d]
    if not batch_norms:
        raise ConfigError(
            "openclip: evaluation: batch needs batch norm, and this image tower has none; leave it out"
        )
    for module in batch_norms:
        module.__class__ = _BatchStatistics  # the same parameters and buffers


def _load(name: str, tag: str) -> State:
    library, known, source = open_clip(), _tag(name, tag), f"open_clip {name} {tag}"
    repository, _, file = known["hf_hub"].rpartition("/")
    if repository:
        default = (library.constants.HF_SAFE_WEIGHTS_NAME, library.constants.HF_WEIGHTS_NAME)
        path = from_hub(source, repository, *([file] if file else default))
    else:
        path = Path("~/.cache/clip").expanduser() / Path(known["url"]).name
        try:
            path = Path(library.pretrained.download_pretrained(known))
        except Exception as error:  # from urllib or the disk
            raise unavailable(source, path, error) from error
    settings = _settings(name)
    with torch.random.fork_rng(devices=[]):
        net = _class(settings)(**settings)
    try:
        library.factory.load_checkpoint(net, str(path))
    except Exception as error:  # a damaged file may raise anything
        raise unavailable(source, path.resolve(), error) from error
    state: State = net.state_dict()
    return state
