from __future__ import annotations

from torch import nn

from stresslens.core.types import Shape


def lenet(shape: Shape, classes: int, *, doubled: bool = False) -> nn.Module:
    """LeNet-5 (LeCun et al. 1998) with ReLU and max pooling; the first convolution is padded, so
    that 28×28 pixels end at 5×5.

    Pooling stands before ReLU, where it gives the same values and gradients for a quarter of ReLU's
    work. `doubled`: after each pooling one more convolution, 5×5 with as many channels out as in,
    which keeps the size. On MNIST: 61,706 parameters, doubled 69,028.

    Raises ValueError below 12×12 pixels.
    """
    channels, height, width = shape
    rows, columns = (height // 2 - 4) // 2, (width // 2 - 4) // 2
    if min(rows, columns) < 1:
        raise ValueError(
            f"lenet needs at least 12×12 pixels; got {height}×{width} (set `input: {{size: 28}}` to enlarge them)"
        )

    def stage(fan_in: int, fan_out: int, padding: int) -> list[nn.Module]:
        again = [nn.Conv2d(fan_out, fan_out, 5, padding=2), nn.ReLU()] if doubled else []
        return [nn.Conv2d(fan_in, fan_out, 5, padding=padding), nn.MaxPool2d(2), nn.ReLU(), *again]

    return nn.Sequential(
        *stage(channels, 6, 2),
        *stage(6, 16, 0),
        nn.Flatten(),
        *(
            nn.Linear(16 * rows * columns, 120),
            nn.ReLU(),
            nn.Linear(120, 84),
            nn.ReLU(),
            nn.Linear(84, classes),
        ),
    )
