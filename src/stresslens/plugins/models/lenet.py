from __future__ import annotations

from torch import nn

from stresslens.core.types import Shape


def lenet(shape: Shape, classes: int, *, doubled: bool = False) -> nn.Module:
    """LeNet-5 (LeCun et al. 1998) with ReLU and max pooling.

    The first convolution is padded, so that 28×28 pixels become 5×5. Pooling is before ReLU: values
    and gradients are the same, with a quarter of ReLU's work. `doubled` adds a 5×5 convolution
    after each pooling, which keeps channels and size. On MNIST: 61,706 parameters, doubled 69,028.
    Raises ValueError below 12×12 pixels.
    """
    channels, height, width = shape
    rows, columns = (height // 2 - 4) // 2, (width // 2 - 4) // 2
    if min(rows, columns) < 1:
        raise ValueError(
            f"lenet needs at least 12×12 pixels; got {height}×{width} "
            "(set `input: {size: 28}` to enlarge them)"
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
