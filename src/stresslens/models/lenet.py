from __future__ import annotations

from torch import nn

from stresslens.core.types import Shape


def lenet(shape: Shape, classes: int) -> nn.Module:
    """LeNet-5 (LeCun et al. 1998) with ReLU and max pooling; the first convolution is padded, so that 28×28 pixels end at 5×5.

    Pooling stands before ReLU, where it gives the same values and gradients for a quarter of ReLU's work.

    Raises ValueError below 12×12 pixels.
    """
    channels, height, width = shape
    rows, columns = (height // 2 - 4) // 2, (width // 2 - 4) // 2
    if min(rows, columns) < 1:
        raise ValueError(f"lenet needs at least 12×12 pixels; got {height}×{width} (set `input: {{size: 28}}` to enlarge them)")
    return nn.Sequential(
        *(nn.Conv2d(channels, 6, 5, padding=2), nn.MaxPool2d(2), nn.ReLU()),
        *(nn.Conv2d(6, 16, 5), nn.MaxPool2d(2), nn.ReLU()),
        nn.Flatten(),
        *(nn.Linear(16 * rows * columns, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, classes)),
    )
