from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from stresslens.core.copies import quick
from stresslens.core.data import Split
from stresslens.core.errors import ConfigError
from stresslens.core.maps import Maps, spans
from stresslens.core.types import Count, Shape
from stresslens.plugins.explainers._baselines import baseline
from stresslens.plugins.explainers._changed_patches import PATCHES, Windows, changed_patches
from stresslens.plugins.explainers._passes import MOST, Of, rows, scores

WINDOW, USUAL = 5, 28
"""Pixels of the window on an image of this side; on larger images it keeps its share of the side."""
KEPT = 4
"""The outputs of so many layers of an image are kept, about, to compute patches of them."""
SMALL, POSITIONS = 32, 16
"""Images of up to this side are covered at every pixel, larger ones at so many positions along the
longer side."""


def occlusion(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    train: Split | None,
    *,
    size: Count | tuple[Count, Count] | Literal["auto"] = "auto",
    stride: Count | Literal["auto"] = "auto",
    fill: Annotated[float, Field(ge=0, le=1)] | Literal["mean", "blur"] = 0.5,
    of: Of = "probability",
    drop: bool = True,
    credit: Literal["centre", "covered"] = "centre",
) -> Maps:
    """Occlusion: how much the score drops when a window of the image is covered (Zeiler & Fergus
    2014).

    The window is `size` pixels high and wide, or (height, width). It moves by `stride` and is cut
    at the image's edge. `auto` is a window of 5×5 that moves by 1 on images of up to 32×32 pixels; on
    larger images it is 5/28 of each side, and has 16 positions along the longer side.

    With `credit: centre` every pixel is the window's centre once (for even sizes the pixel above and
    left of it) and gets its drop. With `covered` a pixel gets the mean over the windows that cover
    it. The window is filled with a grey in [0, 1], the channels' means over the training images, or
    the blurred image. Without `drop` the map holds the score itself.

    On the CPU, convolutions, poolings and activations in front of a net, and a linear layer behind
    them, are computed only where they see the window, while that is at most half of their output.
    That is the same up to rounding, and is compared with whole passes on some windows; where it
    differs, all passes are whole.

    Raises ConfigError for a window larger than the image, for windows that miss pixels (`covered`),
    and for the mean without training images.
    """
    n, _, height, width = x.shape
    high, wide, stride = _window(height, width, size, stride)
    _check_window(high, wide, height, width, stride if credit == "covered" else 1)
    tops, lefts = _starts(height, high, stride, credit), _starts(width, wide, stride, credit)
    starts = torch.cartesian_prod(tops, lefts).to(x.device)
    windows = Windows(starts[:, 0], starts[:, 1], high, wide)
    fast = quick(model, x)
    filler = baseline(x, fill, train, "occlusion")
    effect = _covered_scores(fast, x, y, filler, windows, of, own=fast is model)
    effect = effect.view(n, len(tops), len(lefts))
    if drop:
        plain = scores(lambda positions: fast(x[positions]), y, of, rows(fast, x))
        effect = plain[:, None, None] - effect
    if credit == "centre":
        values = effect.repeat_interleave(stride, 1)[:, :height].repeat_interleave(stride, 2)[:, :, :width]
    else:
        down, across = (
            spans(s.to(x.device), k, side).float()
            for s, k, side in ((tops, high, height), (lefts, wide, width))
        )
        values = down.T @ effect @ across / (down.sum(0)[:, None] * across.sum(0))
    what = "log probability" if of == "log_probability" else of
    return Maps(values.cpu(), drop, f"{what} lost" if drop else what)


def _covered_scores(
    model: nn.Module, x: Tensor, y: Tensor, filler: Tensor, windows: Windows, of: Of, *, own: bool
) -> Tensor:
    """(n · P,) the scores of images x (n, C, H, W) covered by `filler` in each of P windows. The layers of
    a model that is the user's `own`, and no copy, are not taken apart."""
    at_once = max(1, rows(model, x) // KEPT)
    pieces = zip(x.split(at_once), y.split(at_once), filler.split(at_once), strict=True)
    return torch.cat([_scores_of_piece(model, *piece, windows, of, own) for piece in pieces])


def _scores_of_piece(
    model: nn.Module, x: Tensor, y: Tensor, filler: Tensor, windows: Windows, of: Of, own: bool
) -> Tensor:
    count = len(windows.tops)
    rows_in, columns_in = (
        spans(starts, size, side)
        for starts, size, side in (
            (windows.tops, windows.high, x.shape[2]),
            (windows.lefts, windows.wide, x.shape[3]),
        )
    )

    def whole(positions: Tensor) -> Tensor:
        image, window = positions // count, positions % count
        inside = rows_in[window][:, None, :, None] & columns_in[window][:, None, None, :]
        logits: Tensor = model(torch.where(inside, filler[image], x[image]))
        return logits

    with torch.no_grad():
        patches = None if own else changed_patches(model, x, filler, windows, whole)
    at_once = rows(model, x, most=MOST if patches is None else PATCHES)
    return scores(patches or whole, y.repeat_interleave(count), of, at_once)


def cost(
    *,
    shape: Shape,
    size: int | tuple[int, int] | Literal["auto"],
    stride: int | Literal["auto"],
    credit: str,
) -> float:
    _, height, width = shape
    high, wide, stride = _window(height, width, size, stride)
    tops, lefts = _starts(height, high, stride, credit), _starts(width, wide, stride, credit)
    return len(tops) * len(lefts) / 3


def _window(
    height: int,
    width: int,
    size: int | tuple[int, int] | Literal["auto"],
    stride: int | Literal["auto"],
) -> tuple[int, int, int]:
    """The height, the width and the stride of the window on images of these sides."""
    side = max(height, width)
    steps = 1 if side <= SMALL else -(-side // POSITIONS)
    if size == "auto":
        least = max(WINDOW, steps if stride == "auto" else stride)
        share = WINDOW / USUAL if side > SMALL else 0.0
        high, wide = (min(s, max(least, round(share * s))) for s in (height, width))
    else:
        high, wide = (size, size) if isinstance(size, int) else size
    return high, wide, max(1, min(steps, high, wide)) if stride == "auto" else stride


def _check_window(high: int, wide: int, height: int, width: int, stride: int) -> None:
    if high > height or wide > width:
        raise ConfigError(
            f"occlusion: a window of {high}×{wide} is larger than the image ({height}×{width}); "
            "take a smaller size"
        )
    if stride > min(high, wide):
        raise ConfigError(
            f"occlusion: with a stride of {stride} windows of {high}×{wide} miss some pixels; "
            "take a smaller stride"
        )


def _starts(side: int, size: int, stride: int, credit: str) -> Tensor:
    """The first row or column of each window; centred windows are centred on each `stride`
    pixels."""
    if credit == "centre":
        return torch.arange(-(-side // stride)) * stride + (stride - 1) // 2 - (size - 1) // 2
    return torch.arange(-(-(side - size) // stride) + 1) * stride
