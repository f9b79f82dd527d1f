"""Convolution by unfolding (im2col): patches as matrix rows, one matrix product, explicit
backward."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

Pair = tuple[int, int]

NUMBERS, NUMBERS_ON_A_GPU = 2**20, 2**26
"""Most values of unfolded patches in memory at once (or those of one image, if these are more): few
enough for a CPU's caches, and enough to keep a GPU busy."""


class UnfoldConv2d(nn.Conv2d):
    """`nn.Conv2d` without dilation and groups, computed by `convolution`.

    Parameters, names and initialisation are the same, and so are the values up to rounding. The
    output is channels last in memory.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Pair,
        stride: int | Pair = 1,
        padding: int | Pair = 0,
        bias: bool = True,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, bias=bias)

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return convolution(input, weight, bias, self.stride, self.padding)  # type: ignore[arg-type]


def convolution(x: Tensor, weight: Tensor, bias: Tensor | None, stride: Pair, padding: Pair) -> Tensor:
    """x (N, C, H, W), weight (K, C, h, w), bias (K,) → (N, K, H', W'), like `F.conv2d`.

    Under autocast it uses autocast's dtype. At stride 1 the patches are h·w times as large as the
    images. To save memory, the backward pass keeps only the input and unfolds it again, and images
    are processed a few at a time: beyond inputs, outputs and gradients it needs a few times
    `NUMBERS`. It can be differentiated once. Raises ValueError if the kernel is larger than the
    padded image.
    """
    if torch.is_autocast_enabled(x.device.type):
        narrow = torch.get_autocast_dtype(x.device.type)
        x, weight, bias = x.to(narrow), weight.to(narrow), None if bias is None else bias.to(narrow)
    if any(side + 2 * pad < kernel for side, pad, kernel in zip(x.shape[2:], padding, weight.shape[2:])):
        raise ValueError(
            f"a kernel of {weight.shape[2]}×{weight.shape[3]} does not fit into "
            f"{x.shape[2]}×{x.shape[3]} pixels padded by {padding[0]} and {padding[1]}"
        )
    result: Tensor = _Convolution.apply(x, weight, bias, stride, padding)  # type: ignore[no-untyped-call]
    return result


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: Pair, padding: Pair
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        matrix = _matrix(weight).t()
        rows, columns = (
            (x.shape[2 + k] + 2 * padding[k] - weight.shape[2 + k]) // stride[k] + 1 for k in (0, 1)
        )
        outputs = x.new_empty(x.shape[0], rows, columns, len(weight))
        for part in _parts(outputs, weight):
            patches, target = _unfold(x[part], weight, stride, padding), outputs[part].view(-1, len(weight))
            if bias is None:
                torch.mm(patches, matrix, out=target)
            else:
                torch.addmm(bias, patches, matrix, out=target)
        return outputs.permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        for_x, for_weight, for_bias, *_ = ctx.needs_input_grad
        slope = slope.permute(0, 2, 3, 1).contiguous()  # (N, H', W', K)
        matrix = _matrix(weight)
        wide = torch.promote_types(x.dtype, torch.float32)  # bfloat16 is too narrow for sums
        of_weight = torch.zeros_like(matrix, dtype=wide)
        of_x = torch.empty_like(x, memory_format=torch.channels_last) if for_x else None
        for part in _parts(slope, weight):
            if of_x is not None:
                of_x[part] = _fold(slope[part] @ matrix, x[part], weight, ctx.stride, ctx.padding, wide)
            if for_weight:
                of_weight += slope[part].flatten(0, 2).t() @ _unfold(x[part], weight, ctx.stride, ctx.padding)
        k, c, h, w = weight.shape
        return (
            of_x,
            of_weight.view(k, h, w, c).permute(0, 3, 1, 2).to(weight.dtype) if for_weight else None,
            slope.sum((0, 1, 2), dtype=wide).to(weight.dtype) if for_bias else None,
            None,
            None,
        )


def _matrix(weight: Tensor) -> Tensor:
    """(K, C, h, w) → (K, h·w·C)."""
    return weight.permute(0, 2, 3, 1).flatten(1)


def _parts(outputs: Tensor, weight: Tensor) -> Iterator[slice]:
    """Slices of images of outputs (N, H', W', K): as many at a time as `NUMBERS` allows, at least
    one."""
    most = NUMBERS if outputs.device.type == "cpu" else NUMBERS_ON_A_GPU
    at_once = max(1, most // (outputs.shape[1] * outputs.shape[2] * weight[0].numel()))
    return (slice(start, start + at_once) for start in range(0, len(outputs), at_once))


def _unfold(x: Tensor, weight: Tensor, stride: Pair, padding: Pair) -> Tensor:
    """The patches (n·H'·W', h·w·C) of images (n, C, H, W).

    In channels-last images each row of a patch is contiguous in memory.
    """
    (_, c, h, w), (down, across), (above, beside) = weight.shape, stride, padding
    padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, beside, beside, above, above)).contiguous()
    n, height, width, _ = padded.shape
    image, row, pixel, _ = padded.stride()
    windows = ((height - h) // down + 1, (width - w) // across + 1)
    strides = (image, down * row, across * pixel, row, 1)
    return padded.as_strided((n, *windows, h, w * c), strides).reshape(-1, h * w * c)


def _fold(
    patches: Tensor, x: Tensor, weight: Tensor, stride: Pair, padding: Pair, wide: torch.dtype
) -> Tensor:
    """The transpose of `_unfold`: adds patches (n, H', W', h·w·C) up to images like x (n, C, H, W).

    Sums are computed in the dtype `wide`.
    """
    (_, c, h, w), (down, across), (above, beside) = weight.shape, stride, padding
    n, rows, columns, _ = patches.shape
    height, width = x.shape[2:]
    padded = torch.zeros(n, height + 2 * above, width + 2 * beside, c, dtype=wide, device=x.device)
    windows = patches.view(n, rows, columns, h, w, c)
    for i in range(h):
        for j in range(w):
            padded[:, i : i + down * rows : down, j : j + across * columns : across] += windows[:, :, :, i, j]
    return padded[:, above : above + height, beside : beside + width].permute(0, 3, 1, 2)
