from __future__ import annotations

from torch import nn

from stresslens.core.types import Count, Shape


def first_cnn(shape: Shape, classes: int, *, channels: Count = 16, hidden: Count = 64) -> nn.Module:
    """A CNN of three 3×3 convolutions, each with ReLU and 2×2 max pooling, and two linear layers.

    The convolutions have `channels`, twice and four times as many channels. There is no softmax,
    which belongs to the loss. On CIFAR-10: 89,834 parameters. Raises ValueError below 8×8 pixels.
    """
    colours, height, width = shape
    if min(height, width) < 8:
        raise ValueError(
            f"first_cnn halves the image three times, so it needs at least 8×8 pixels; got {height}×{width}"
        )
    wide, wider = 2 * channels, 4 * channels
    return nn.Sequential(
        *(nn.Conv2d(colours, channels, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(channels, wide, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(wide, wider, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        nn.Flatten(),
        *(nn.Linear(wider * (height // 8) * (width // 8), hidden), nn.ReLU(), nn.Linear(hidden, classes)),
    )
