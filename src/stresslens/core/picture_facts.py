"""What the data check measures of every image: light, sharpness, borders, order of the colours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

SMALL, TINTED = 48, 16
"""Light and edges, and tints, are measured on images reduced to at most so many pixels a side."""
EVEN, ABRUPT, ACROSS = 0.03, 0.08, 0.75
"""A border is of one colour (± `EVEN`), and ends at a line of pixels of which the share `ACROSS`
differ from it by more than `ABRUPT`."""

Floats = NDArray[np.float32]


class Measures(NamedTuple):
    """Measures of N images (N, C, H, W) in [0, 1]."""

    colour: Floats
    """(N, C) mean of each channel."""
    span: Floats
    """(N,) largest minus smallest value, of the channel where it is largest."""
    spread: Floats
    """(N,) standard deviation, of the channel where it is largest."""
    dark: Floats
    """(N,) grey that 1 % of the pixels are below."""
    bright: Floats
    """(N,) grey that 1 % of the pixels are above."""
    white: Floats
    """(N,) share of pixels of at least 0.98 in all channels."""
    sharpness: Floats
    """(N,) share of the grey variance that a blur of one pixel (1 2 1, both ways) removes."""
    borders: Floats
    """(N, 4) widths of the borders at top, bottom, left and right, as shares of the image's side."""
    tints: Floats
    """(N, 47) how much redder than bluer parts of the image are; with red and blue exchanged, the
    values change their sign. (N, 0) without colours."""

    @staticmethod
    def of(x: Tensor) -> Measures:
        """The measures of images x (N, C, H, W), N ≥ 1."""
        grey = x.mean(1, keepdim=True)
        small = downsampled(x)
        levels = small.mean(1).flatten(1)
        percent = max(1, levels.shape[1] // 100)
        extremes = (
            (small.amin((2, 3)), small.amax((2, 3))) if small is x else (x.amin((2, 3)), x.amax((2, 3)))
        )
        values = (
            x.mean((2, 3)),
            (extremes[1] - extremes[0]).amax(1),
            _spread(small).amax(1),
            levels.topk(percent, largest=False).values[:, -1],
            levels.topk(percent).values[:, -1],
            (small >= 0.98).all(1).float().mean((1, 2)),
            _sharpness(grey),
            _borders(x),
            _tints(downsampled(x, TINTED)) if x.shape[1] == 3 else x.new_empty(len(x), 0),
        )
        return Measures(*(value.numpy() for value in values))

    @staticmethod
    def joined(parts: Sequence[Measures]) -> Measures:
        """The measures of the images of all parts."""
        return Measures(*map(np.concatenate, zip(*parts)))


@dataclass(frozen=True)
class ClassEdges:
    """Differences of neighbouring grey pixels, right and down, of the training images of K classes:
    number of images n (K,), sums and sums of squares (K, 2, h, w)."""

    n: Tensor
    sums: Tensor
    squares: Tensor

    @staticmethod
    def of(x: Tensor, labels: Tensor, classes: int) -> ClassEdges:
        """The differences of images x (N, C, H, W) with labels (N,)."""
        grey = downsampled(x).mean(1)
        right = F.pad(grey[:, :, 1:] - grey[:, :, :-1], (0, 1))
        down = F.pad(grey[:, 1:] - grey[:, :-1], (0, 0, 0, 1))
        edges = torch.stack([right, down], 1)
        empty = edges.new_zeros(classes, *edges.shape[1:])
        return ClassEdges(
            labels.bincount(minlength=classes),
            empty.index_add(0, labels, edges),
            empty.index_add(0, labels, edges.square()),
        )

    def __add__(self, other: ClassEdges) -> ClassEdges:
        return ClassEdges(self.n + other.n, self.sums + other.sums, self.squares + other.squares)

    def __sub__(self, other: ClassEdges) -> ClassEdges:
        return ClassEdges(self.n - other.n, self.sums - other.sums, self.squares - other.squares)

    def only(self, label: int) -> ClassEdges:
        """Of one class (1, 2, h, w)."""
        rows = slice(label, label + 1)
        return ClassEdges(self.n[rows], self.sums[rows], self.squares[rows])

    def together(self) -> ClassEdges:
        """Of all classes as one (1, 2, h, w)."""
        return ClassEdges(*(value.sum(0, keepdim=True) for value in (self.n, self.sums, self.squares)))

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation (K, 2, h, w); not a number for a class without images."""
        n = self.n[:, None, None, None]
        mean = self.sums / n
        return mean, (self.squares / n - mean.square()).clamp(min=0).sqrt()


@dataclass(frozen=True)
class PictureFacts:
    """What checks of pictures are given: measures of the N images of all splits, in their order."""

    measures: Measures
    names: Sequence[str]
    """(N,) how each image is called."""
    part: NDArray[np.int64]
    """(N,) the split of each image, a position in `data.splits`."""
    labels: NDArray[np.int64]
    """(N,)."""
    edges: ClassEdges
    examples: Tensor
    """(n, C, H, W) some of the images, in which faults are planted to measure how many a check finds."""
    alike: bool
    """Whether images of one class are so similar that what they share tells nothing, as handwritten
    digits are."""


def downsampled(x: Tensor, most: int = SMALL) -> Tensor:
    """Images (N, C, H, W), at most so many pixels a side, by the means of their pixels."""
    height, width = (min(side, most) for side in x.shape[2:])
    return x if (height, width) == x.shape[2:] else F.adaptive_avg_pool2d(x, (height, width))


def _spread(x: Tensor) -> Tensor:
    """(N, C) standard deviation of each channel."""
    return (x.square().mean((2, 3)) - x.mean((2, 3)).square()).clamp(min=0).sqrt()


def _sharpness(grey: Tensor) -> Tensor:
    """(N,) of grey images (N, 1, H, W); 1 for an image of one grey."""
    soft = F.pad(grey, (1, 1, 1, 1), "replicate")
    soft = (soft[:, :, :-2] + soft[:, :, 2:]) / 4 + soft[:, :, 1:-1] / 2
    soft = (soft[..., :-2] + soft[..., 2:]) / 4 + soft[..., 1:-1] / 2
    variance = _spread(grey)[:, 0].square()
    removed = (grey - soft).square().mean((1, 2, 3))
    return torch.where(variance > 1e-6, removed / variance.clamp(min=1e-6), 1.0)


def _borders(x: Tensor) -> Tensor:
    """(N, 4) widths of the borders at top, bottom, left and right."""
    return torch.cat([_opposite(x), _opposite(x.transpose(2, 3))], 1)


def _opposite(x: Tensor) -> Tensor:
    """(N, 2) shares of the rows (N, C, rows, columns) that belong to the borders at their beginning and
    end."""
    even = (x.amax(3) - x.amin(3)).amax(1) < EVEN
    means = x.mean(3)
    return torch.stack([_border(x, even, means), _border(x.flip(2), even.flip(1), means.flip(2))], 1)


def _border(x: Tensor, even: Tensor, means: Tensor) -> Tensor:
    """(N,) share of the rows (N, C, rows, columns) that belong to the border at their beginning; `even`
    (N, rows) are of one colour, `means` (N, C, rows) their colours."""
    rows = x.shape[2]
    width = x.new_zeros(len(x))
    some = torch.nonzero(even[:, 0])[:, 0]
    colour = means[some, :, :1]
    depth = (even[some] & ((means[some] - colour).abs().amax(1) < EVEN)).long().cumprod(1).sum(1)
    some, colour, depth = (values[depth <= rows // 2] for values in (some, colour, depth))
    differs = ((x[some, :, depth] - colour).abs().amax(1) > ABRUPT).float().mean(1) >= ACROSS
    width[some] = torch.where(differs, depth / rows, 0.0)
    return width


def _tints(x: Tensor) -> Tensor:
    """(N, 47) of colour images: red minus blue by place, by brightness, weighted with other
    differences, and cut off at several limits, by the place of green in the order of the channels."""
    red, green, blue = x.unbind(1)
    tint, light, middle = red - blue, x.mean(1), green - (red + blue) / 2
    by_light = tint.flatten(1).gather(1, light.flatten(1).argsort(1))
    found = [
        F.adaptive_avg_pool2d(tint[:, None], 4).flatten(1),
        F.adaptive_avg_pool1d(by_light, 4),
    ]
    weights = (middle, middle.abs(), tint.abs(), light * middle)
    found += [F.adaptive_avg_pool2d((tint * weight)[:, None], 2).flatten(1) for weight in weights]
    lowest, highest = green < torch.minimum(red, blue), green > torch.maximum(red, blue)
    kinds = (
        (tint, (0.02, 0.05, 0.1, 0.2, 0.4)),
        (tint * ~(lowest | highest), (0.05, 0.2)),
        (tint * lowest, (0.05, 0.2)),
        (tint * highest, (0.05, 0.2)),
    )
    found += [F.hardtanh(of, -most, most).mean((1, 2))[:, None] for of, limits in kinds for most in limits]
    return torch.cat(found, 1)
