"""Convolutions without the rows and columns of their kernels that see nothing but padding."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stresslens.core.inspection import evaluating, hooked, is_plain


class CroppedConv2d(nn.Conv2d):
    """A Conv2d for maps that are smaller than its kernel.

    On a map of 1×1 a kernel of 3×3 with padding 1 sees one pixel, with its middle; eight ninths of the
    products are with zeros. Without them values and gradients are the same up to rounding, and the
    gradients of these weights are 0, as before.
    """

    def forward(self, input: Tensor) -> Tensor:
        down, above, below = seen_taps(self, 0, input.shape[-2])
        across, left, right = seen_taps(self, 1, input.shape[-1])
        weight = self.weight[:, :, down, across]
        if weight.shape == self.weight.shape:
            return super().forward(input)
        if above or below or left or right:
            input = F.pad(input, (left, right, above, below))
        return F.conv2d(input, weight, self.bias, self.stride, 0, self.dilation, self.groups)

    def _get_name(self) -> str:
        return "Conv2d"


def seen_taps(layer: nn.Conv2d, axis: int, side: int) -> tuple[slice, int, int]:
    """Which part of a kernel sees a map of this side, along an axis (0 for rows, 1 for columns), and the
    padding in front and behind that this part needs; below 0 where it misses the map's first or last
    positions."""
    kernel, stride, dilation = layer.kernel_size[axis], layer.stride[axis], layer.dilation[axis]
    padding = int(layer.padding[axis])
    outputs = (side + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1

    def sees(tap: int) -> bool:
        output = max(0, -((tap * dilation - padding) // stride))  # the first one that is not before the map
        return output < outputs and output * stride - padding + tap * dilation < side

    seen = [tap for tap in range(kernel) if sees(tap)] or [0, kernel - 1]
    first, last = seen[0], seen[-1]
    front = padding - first * dilation
    behind = (outputs - 1) * stride + dilation * (last - first) + 1 - side - front
    return slice(first, last + 1), front, behind


def crop_kernels(model: nn.Module, x: Tensor) -> list[nn.Conv2d]:
    """Makes each plain Conv2d of which rows or columns see nothing but padding, in a pass of images x
    (N, C, H, W), a `CroppedConv2d`, in place, and returns them.

    Only for a model of one's own, such as a copy; `whole_kernels` undoes it.
    """
    found: list[nn.Conv2d] = []

    def note(name: str, layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if type(layer) is nn.Conv2d and layer.padding_mode == "zeros" and not isinstance(layer.padding, str):
            parts = (seen_taps(layer, axis, inputs[0].shape[axis - 2])[0] for axis in (0, 1))
            if any(part != slice(0, size) for part, size in zip(parts, layer.kernel_size)):
                found.append(layer)

    plain = [(name, module) for name, module in model.named_modules() if is_plain(module)]
    with evaluating(model), torch.no_grad(), hooked(model, note, plain):
        model(x)
    for layer in found:
        layer.__class__ = CroppedConv2d
    return found


def whole_kernels(model: nn.Module) -> None:
    """Undoes `crop_kernels`."""
    for module in model.modules():
        if type(module) is CroppedConv2d:
            module.__class__ = nn.Conv2d  # type: ignore[assignment]
