"""Input layers (normalisation, resizing), layers with a straight-through gradient (BPDA), and the
order of ReLU and pooling."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stresslens.core.center_crop import CenterCrop, Size
from stresslens.core.copies import copied
from stresslens.core.data import Split
from stresslens.core.dtypes import as_input, float_dtypes, image_dtype, keep_own_dtypes, why_not
from stresslens.core.errors import ConfigError
from stresslens.core.inspection import evaluating
from stresslens.core.outputs import hook_logits
from stresslens.core.spelling import closest
from stresslens.core.types import Shape

Normalization = Literal["standard", "pixel_minmax", "none"]


Interpolation = Literal["bilinear", "bicubic"]


class Normalize(nn.Module):
    """x·gain + shift: images in [0,1] → the range that the net was made for.

    gain and shift have shape (C,1,1) or (C,H,W). With three channels of gain and shift, a grey
    image is repeated in red, green and blue.
    """

    gain: Tensor
    shift: Tensor

    def __init__(self, gain: Tensor, shift: Tensor) -> None:
        super().__init__()
        self.register_buffer("gain", gain)
        self.register_buffer("shift", shift)

    def forward(self, x: Tensor) -> Tensor:
        return torch.addcmul(self.shift, x.to(self.gain.dtype), self.gain)

    @staticmethod
    def fitted(split: Split, how: Normalization) -> Normalize:
        """Fits the normalisation on a training split.

        `standard`: each channel to mean 0 and standard deviation 1. `pixel_minmax`: each pixel to
        [0,1] by its minimum and maximum; constant pixels to 0. `none`: images stay in [0,1].
        """
        channels = split.shape[0]
        if how == "none":
            return Normalize(torch.ones(channels, 1, 1), torch.zeros(channels, 1, 1))
        extremes: list[Tensor] = []
        total = torch.zeros(2, channels, dtype=torch.float64)
        for piece in split.pieces():
            extremes.append(torch.stack(piece.aminmax(dim=0)))
            if how == "standard":
                total += _channel_sums(piece, split.scale).cpu()
        lowest, highest = torch.stack(extremes, 1)  # (pieces, C, H, W) each
        low, high = (extreme.to(torch.float32) / split.scale for extreme in (lowest.amin(0), highest.amax(0)))
        if how == "pixel_minmax":
            return Normalize.by_range(low, high)
        mean, square = total / (len(split) * split.shape[1] * split.shape[2])
        varies = high.flatten(1).amax(1) > low.flatten(1).amin(1)
        deviation = (square - mean.square()).clamp_min(0).sqrt()
        spread = deviation * varies.cpu()  # the deviation of a constant channel is rounding
        return Normalize.by_moments(mean.tolist(), spread.tolist())

    @staticmethod
    def by_moments(mean: Sequence[float], deviation: Sequence[float], scale: float = 1.0) -> Normalize:
        """Each channel to (x - mean)/deviation · scale; a channel with deviation 0 is only centred."""
        centre, spread = (torch.tensor(v, dtype=torch.float32)[:, None, None] for v in (mean, deviation))
        gain = torch.where(spread > 0, 1 / spread, 1.0)
        return Normalize(gain * scale, -centre * gain * scale)

    @staticmethod
    def by_range(low: Tensor, high: Tensor) -> Normalize:
        """Each pixel from [low, high] to [0,1]; a pixel with low = high to 0."""
        gain = torch.where(high > low, 1 / (high - low), 0.0)
        return Normalize(gain, -low * gain)


def _channel_sums(images: Tensor, scale: float) -> Tensor:
    """(2, C) the sums and the sums of squares of images / scale."""
    x = images.to(torch.float64, copy=True).div_(scale)
    return torch.stack([x.sum((0, 2, 3)), x.square_().sum((0, 2, 3))])


class Resize(nn.Module):
    """Antialiased resizing to (height, width); bicubic overshoot is clamped to [0,1]."""

    def __init__(self, size: tuple[int, int], interpolation: Interpolation = "bilinear") -> None:
        super().__init__()
        self.size, self.interpolation = size, interpolation

    def forward(self, x: Tensor) -> Tensor:
        resized = F.interpolate(x, self.size, mode=self.interpolation, antialias=True, align_corners=False)
        return resized.clamp(0, 1) if self.interpolation == "bicubic" else resized

    def extra_repr(self) -> str:
        return f"{self.size[0]}×{self.size[1]}, {self.interpolation}"


class Dropout(nn.Dropout):
    """Dropout like torch's, in less than half the time on a CPU.

    Each 64 random bits decide four values, so the probability of dropping is p to within 2⁻¹⁷.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p in (0, 1) or x.device.type != "cpu":
            return super().forward(x)
        words = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
        kept = words.view(torch.int16)[: x.numel()].view(x.shape) >= round(2**16 * self.p) - 2**15
        return x * kept.to(x.dtype).mul_(1 / (1 - self.p))


class StraightThrough(nn.Module):
    """Backward pass differentiable approximation (BPDA; Athalye et al. 2018).

    The value is that of `forward`, and the gradient is that of `backward`, by default the identity.
    Use it for a step without a useful gradient, such as quantisation or JPEG: wrap that step of
    your model in it before you attack the model. Both functions take images (N, C, H, W) and return
    the same shape. Raises ConfigError if their shapes differ.
    """

    def __init__(
        self, forward: Callable[[Tensor], Tensor], backward: Callable[[Tensor], Tensor] | None = None
    ) -> None:
        super().__init__()
        self.value, self.approximation = forward, backward

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            value = self.value(x)
        smooth = x if self.approximation is None else self.approximation(x)
        if value.shape != smooth.shape:
            raise ConfigError(
                f"StraightThrough: forward gives shape {tuple(value.shape)}, "
                f"its approximation {tuple(smooth.shape)}"
            )
        return value.detach() + (smooth - smooth.detach())


def straight_through(model: nn.Module, names: Sequence[str]) -> nn.Module:
    """A copy of the model in which these submodules have the gradient of the identity (BPDA).

    `names` are dotted names; without any, the model itself is returned. Raises ConfigError for a
    name that no submodule has.
    """
    if not names:
        return model
    changed = copied(model)
    parts = dict(changed.named_modules(remove_duplicate=False))
    replaced: dict[nn.Module, nn.Module] = {}
    for name in names:
        if name not in parts or not name:
            raise ConfigError(
                f"bpda: the model has no submodule {name!r}; "
                f"{closest(name, [part for part in parts if part])}"
            )
        replaced[parts[name]] = StraightThrough(parts[name])
        replaced[parts[name]].training = parts[name].training
    for name, part in parts.items():  # a shared submodule has several names
        if name and part in replaced:
            parent, _, last = name.rpartition(".")
            setattr(parts[parent], last, replaced[part])
    return changed


def with_input_layers(
    net: nn.Module,
    normalize: Normalize,
    size: Size | None = None,
    interpolation: Interpolation = "bilinear",
    crop: CenterCrop | None = None,
) -> nn.Sequential:
    """`net` with resizing, centre crop and normalisation in front, so that the whole model takes
    images in [0,1]."""
    first: list[tuple[str, nn.Module]] = [("resize", Resize(size, interpolation))] if size else []
    first += [("crop", crop)] if crop else []
    return nn.Sequential(OrderedDict([*first, ("normalize", normalize), ("net", net)]))


def for_shown_images(model: nn.Module) -> nn.Sequential:
    """The same net and normalisation for images that have the net's size already: without resizing
    and centre crop."""
    kept = [(name, part) for name, part in model.named_children() if name not in ("resize", "crop")]
    return nn.Sequential(OrderedDict(kept))


def input_layers(model: nn.Module) -> nn.Sequential:
    """The layers that `with_input_layers` put in front of the net."""
    return nn.Sequential(*(layer for name, layer in model.named_children() if name != "net"))


def shape_seen(model: nn.Module, shape: Shape) -> Shape:
    """The shape (channels, height, width) that the net gets for images of this shape."""
    front = input_layers(model)
    device = next(iter(front.buffers()), torch.empty(0)).device
    channels, height, width = front(torch.zeros(1, *shape, device=device)).shape[1:]
    return (channels, height, width)


def preparation(model: nn.Module, shape: Shape) -> str:
    """How images of this shape are prepared for the net, in words; empty if only normalised."""
    parts = dict(model.named_children())
    resize, crop = parts.get("resize"), parts.get("crop")
    size = (
        f"resized from {shape[1]}×{shape[2]} to {resize.extra_repr()}" if isinstance(resize, Resize) else ""
    )
    middle = f"{crop.extra_repr()} of {crop.of[0]}×{crop.of[1]}" if isinstance(crop, CenterCrop) else ""
    channels = shape_seen(model, shape)[0]
    grey = f"grey images repeated in {channels} channels" if channels != shape[0] else ""
    return "; ".join(filter(None, [size, middle, grey]))


def settle_dtypes(model: nn.Module, shape: Shape) -> None:
    """Decides in which dtypes a model computes in a run. Its input layers give what the net takes. A net
    that casts to another dtype itself, and so takes no images of a shape (C, H, W) where all weights are
    in float32, keeps its own dtypes (`keep_own_dtypes`). A net in half precision is cast to float32.
    Raises ConfigError for a net that takes images in none of its dtypes."""
    net, half = model.get_submodule("net"), {torch.float16, torch.bfloat16}
    if set(float_dtypes(net)) <= {torch.float32}:
        return
    if not half.isdisjoint(parameter.dtype for parameter in net.parameters()):
        model.float()
        return
    model.get_submodule("normalize").to(image_dtype(net, shape_seen(model, shape)))
    if why_not(copied(model).float(), shape, torch.float32):
        keep_own_dtypes(model)


def check_output(model: nn.Module, shape: Shape, classes: int, name: str) -> None:
    """Raises ConfigError unless the model maps images of this shape to one finite logit per class. A
    net that returns more than its logits returns them alone from here on (`core.outputs`)."""
    try:
        with evaluating(model), torch.no_grad():
            images = as_input(torch.zeros(2, *shape), model)
            output = model(images)
            if not isinstance(output, Tensor):
                hook_logits(model.get_submodule("net") if hasattr(model, "net") else model)
                output = model(images)
    except ConfigError:
        raise
    except Exception as error:  # a user's module may raise anything
        raise ConfigError(
            f"{name} cannot take images of shape {shape} (channels, height, width): {error}"
        ) from error
    if output.shape == (2, classes) and not torch.isfinite(output).all():
        raise ConfigError(f"{name} returns logits that are not finite for a black image")
    if output.shape != (2, classes):
        got = f"({', '.join(['N', *map(str, output.shape[1:])])})"
        raise ConfigError(f"{name} returns shape {got}; expected logits (N, {classes}), one for each class")
