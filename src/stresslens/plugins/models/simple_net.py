from __future__ import annotations

from typing import Literal

from torch import nn

from stresslens.core.types import Count, Shape
from stresslens.plugins.models._unfold import UnfoldConv2d


def simple_net(
    shape: Shape,
    classes: int,
    *,
    batch_norm: bool = False,
    conv: Literal["library", "unfold"] = "library",
    channels: Count = 32,
) -> nn.Module:
    """A CNN of four 3×3 convolutions with ReLU, 2×2 max pooling between them, and one linear layer.

    The convolutions have `channels`, twice, four and eight times as many channels; the linear layer
    is on the mean over positions. The net is our own design for photographs; it stands in for a
    SimpleNet that a lab used and did not define. Convolutions are initialised as in He et al.
    (2015), so that the net also learns without batch norm. `batch_norm` adds it before the first
    three ReLUs. `conv: unfold` uses our own convolution (im2col) instead of torch's: initial
    weights are the same, and results are the same up to rounding, but time and memory are not
    (`benchmarks/operators.py`).

    For 100 classes of colour photographs: 414,116 parameters, 414,564 with batch norm. Raises
    ValueError below 8×8 pixels.
    """
    colours, height, width = shape
    if min(height, width) < 8:
        raise ValueError(
            f"simple_net halves the image three times, so it needs at least 8×8 pixels; got {height}×{width}"
        )

    def conv2d(fan_in: int, fan_out: int) -> nn.Module:
        layer = (UnfoldConv2d if conv == "unfold" else nn.Conv2d)(fan_in, fan_out, 3, padding=1)
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        return layer

    def stage(fan_in: int, fan_out: int) -> list[nn.Module]:
        norm = [nn.BatchNorm2d(fan_out)] if batch_norm else []
        return [conv2d(fan_in, fan_out), *norm, nn.ReLU(), nn.MaxPool2d(2)]

    return nn.Sequential(
        *stage(colours, channels),
        *stage(channels, 2 * channels),
        *stage(2 * channels, 4 * channels),
        *(conv2d(4 * channels, 8 * channels), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8 * channels, classes)),
    )
