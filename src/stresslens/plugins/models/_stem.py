"""Changes to the first layers (stem) of published networks, for other channels or small images."""

from __future__ import annotations

from typing import Literal

from torch import nn

Stem = Literal["published", "small"]


def with_channels(net: nn.Module, channels: int) -> None:
    """Replaces the first convolution by one with `channels` input channels, if it has others."""
    name, first = next(
        (name, module) for name, module in net.named_modules() if isinstance(module, nn.Conv2d)
    )
    if first.in_channels != channels:
        _replace(net, name, _like(first, channels, first.kernel_size, first.stride, first.padding))


def small(net: nn.Module, name: str) -> None:
    """Replaces the stem by one for small images: a 3×3 convolution with stride 1, without pooling.

    Residual networks have this stem on CIFAR (He et al. 2016). Raises ValueError for a network
    without a convolution `conv1` and max pooling `maxpool`.
    """
    first, pool = getattr(net, "conv1", None), getattr(net, "maxpool", None)
    if not isinstance(first, nn.Conv2d) or not isinstance(pool, nn.MaxPool2d):
        raise ValueError(
            f"stem: small is for residual networks, with a convolution and max pooling in front; "
            f"{name} has none"
        )
    _replace(net, "conv1", _like(first, first.in_channels, (3, 3), (1, 1), (1, 1)))
    _replace(net, "maxpool", nn.Identity())


def _like(
    layer: nn.Conv2d,
    channels: int,
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    padding: str | tuple[int, ...],
) -> nn.Conv2d:
    return nn.Conv2d(channels, layer.out_channels, kernel, stride, padding, bias=layer.bias is not None)  # type: ignore[arg-type]


def _replace(net: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(net.get_submodule(parent), last, module)
