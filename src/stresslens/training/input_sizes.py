"""The sizes of images in front of a net: as kept, resized, cropped, and shown in training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from stresslens.config import registry
from stresslens.config.schema import Input, Train
from stresslens.core import layers
from stresslens.core.center_crop import CenterCrop, Size, crop_of, share_of
from stresslens.core.errors import ConfigError
from stresslens.core.pretrained import Preprocessing
from stresslens.core.types import Shape


def shown_size(train: Train, base: Path) -> Size | None:
    """The size (H, W) of the images that the augmentations show to the net: the last that one of them
    gives (`shown_size` beside a plug-in); None if they keep the size of the images."""
    bound = [registry.resolve("augmentations", value, base=base) for value in train.augment]
    sizes: list[Size | None] = [each.answer_beside("shown_size") for each in bound]
    return next((size for size in reversed(sizes) if size is not None), None)


@dataclass(frozen=True)
class InputSizes:
    """How images of one size become those that a net sees."""

    kept: Size
    """The size of the images of the data set."""
    resized: Size | None
    """The size to which they are resized; None: they are not."""
    cropped: Size | None
    """The middle part that is taken after resizing; None: the whole image."""
    interpolation: layers.Interpolation

    @property
    def seen(self) -> Size:
        return self.cropped or self.resized or self.kept

    def before(self, net: nn.Module, normalize: layers.Normalize) -> nn.Sequential:
        """The net with these input layers in front."""
        crop = CenterCrop(self.cropped, self.resized or self.kept) if self.cropped else None
        return layers.with_input_layers(net, normalize, self.resized, self.interpolation, crop)

    @staticmethod
    def of(inputs: Input, shape: Shape, known: Preprocessing | None, shown: Size | None) -> InputSizes:
        """The sizes for images of this shape. `known` is the preprocessing of the pretrained weights,
        `shown` the size of the images that augmentations show. Raises ConfigError where the section
        `input` and the augmentations name different sizes, or the weights name no crop."""
        size = (inputs.size, inputs.size) if isinstance(inputs.size, int) else inputs.size
        if size == "auto":
            size = shown or (known.shape[1:] if known is not None else None)
        kept = shape[1:]
        seen = size or kept
        if shown is not None and shown != seen:
            raise ConfigError(
                f"train.augment shows images of {shown[0]}×{shown[1]}, and the net is built for "
                f"{seen[0]}×{seen[1]}; set input.size to {list(shown)}, or leave it out"
            )
        interpolation = inputs.interpolation
        if interpolation == "auto":
            interpolation = known.interpolation if known is not None else "bilinear"
        share = _share(inputs, known, seen, kept, random_crops=shown is not None)
        resized = seen if share is None else crop_of(shape, seen, share)
        return InputSizes(
            kept, None if resized == kept else resized, None if seen == resized else seen, interpolation
        )


def _share(
    inputs: Input, known: Preprocessing | None, seen: Size, kept: Size, *, random_crops: bool
) -> float | None:
    """The share of the shorter side that the net sees; None: the whole image is resized to what it
    sees. Raises ConfigError where the weights name none."""
    of_weights = known.crop if known is not None else None
    if inputs.crop == "weights":
        if of_weights is None:
            raise ConfigError(
                "input.crop: weights: the model starts from no weights that say how an image is cropped; "
                "give a share such as 0.875, or none"
            )
        return of_weights
    if inputs.crop == "none":
        return None
    if inputs.crop != "auto":
        return inputs.crop
    if random_crops:
        return of_weights or min(1.0, share_of(seen, kept))
    return of_weights if known is not None and known.crops_by_default else None
