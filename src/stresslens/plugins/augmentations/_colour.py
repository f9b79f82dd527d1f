"""Values of images changed, each image by its own amount.

x (N, C, H, W) are images in [0, 1]; `amount` (N, 1, 1, 1) has the dtype of x. The caller clamps the
results to [0, 1].
"""

from __future__ import annotations

import torch
from torch import Tensor


def brightness(x: Tensor, amount: Tensor) -> Tensor:
    return x * amount


def contrast(x: Tensor, amount: Tensor) -> Tensor:
    """Scales the distance from the mean of the grey image."""
    mean = grey(x).double().mean((1, 2, 3), keepdim=True).to(x.dtype)
    return (x - mean).mul_(amount).add_(mean)


def saturation(x: Tensor, amount: Tensor) -> Tensor:
    """Scales the distance from the grey image."""
    of_grey = grey(x)
    return (x - of_grey).mul_(amount).add_(of_grey)


def hue(x: Tensor, amount: Tensor) -> Tensor:
    """Turns the hue of three channels by `amount` of the colour circle; saturation and value stay."""
    value, lowest = x.amax(1), x.amin(1)
    spread = value - lowest
    red, green, blue = x.unbind(1)
    divisor = spread.where(spread > 0, 1)
    angle = torch.where(
        value == red,
        (green - blue) / divisor,
        torch.where(value == green, 2 + (blue - red) / divisor, 4 + (red - green) / divisor),
    )
    turned = angle + 6 * amount[:, 0]  # (N, H, W) in sixths of the circle
    channels = []
    for offset in (5, 3, 1):
        place = (turned + offset).remainder(6)
        channels.append(value - spread * place.minimum(4 - place).clamp(0, 1))
    return torch.stack(channels, 1)


def sharpness(x: Tensor, amount: Tensor) -> Tensor:
    """Scales the distance from a smoothed image; the border does not change.

    In the smoothed image a pixel has weight five, and each of its eight neighbours weight one.
    """
    if min(x.shape[2:]) < 3:
        return x
    inner = x[:, :, 1:-1, 1:-1]
    lines = x[:, :, :-2] + x[:, :, 1:-1] + x[:, :, 2:]
    smooth = (lines[..., :-2] + lines[..., 1:-1] + lines[..., 2:] + 4 * inner) / 13
    sharper = x.clone()
    sharper[:, :, 1:-1, 1:-1] = smooth + (inner - smooth) * amount
    return sharper


def posterize(x: Tensor, amount: Tensor) -> Tensor:
    """Keeps the `amount` highest of each value's eight bits."""
    step = 2 ** (8 - amount)
    return (x * 255).round_().div_(step).floor_().mul_(step).div_(255)  # division by step is exact


def solarize(x: Tensor, amount: Tensor) -> Tensor:
    """Inverts values of at least `amount`."""
    return (1 - x).where(x >= amount, x)


def invert(x: Tensor, amount: Tensor) -> Tensor:
    return 1 - x


def identity(x: Tensor, amount: Tensor) -> Tensor:
    return x


def autocontrast(x: Tensor, amount: Tensor) -> Tensor:
    """Each channel's darkest value becomes 0 and its brightest 1."""
    low, high = x.amin((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
    varies = high > low
    low, spread = low.where(varies, 0), (high - low).where(varies, 1)
    return (x - low).div_(spread)


def equalize(x: Tensor, amount: Tensor) -> Tensor:
    """Equalises the histogram of each channel's values (eight bits), as PIL does.

    Like PIL, it does not change a channel with fewer than 255 pixels below its brightest value.
    """
    levels = (x * 255).round().long().flatten(2)  # (N, C, H·W)
    counts = torch.zeros(*x.shape[:2], 256, dtype=torch.int64, device=x.device).scatter_add_(
        2, levels, torch.ones_like(levels)
    )
    brightest = counts.gather(2, levels.amax(2, keepdim=True))
    step = (levels.shape[2] - brightest) // 255  # (N, C, 1)
    below = counts.cumsum(2) - counts
    table = ((below + step // 2) // step.clamp_min(1)).clamp_max(255)
    equal = table.gather(2, levels).reshape(x.shape).to(x.dtype) / 255
    return equal.where(step[..., None] > 0, x)


def grey(x: Tensor) -> Tensor:
    """(N, 1, H, W) the luminance of three channels, or the mean of any other number of channels."""
    if x.shape[1] != 3:
        return x.mean(1, keepdim=True)
    return (0.2989 * x[:, :1]).add_(0.587 * x[:, 1:2]).add_(0.114 * x[:, 2:])
