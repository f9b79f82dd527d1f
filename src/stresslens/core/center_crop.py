"""The middle of an image, as an input layer, and the part of an image that a net sees."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stresslens.core.types import Shape

Size = tuple[int, int]


class SeenPart(NamedTuple):
    """The part of an image that a net sees: the rows and the columns of the image."""

    rows: slice
    columns: slice

    @property
    def sides(self) -> Size:
        return (self.rows.stop - self.rows.start, self.columns.stop - self.columns.start)

    def of(self, x: Tensor) -> Tensor:
        """The part of images or maps (…, H, W)."""
        return x[..., self.rows, self.columns]


class CenterCrop(nn.Module):
    """The middle `size` (height, width) of images that are `of` (height, width), as torchvision's."""

    def __init__(self, size: Size, of: Size) -> None:
        super().__init__()
        self.size, self.of = size, of
        self.start = (round((of[0] - size[0]) / 2), round((of[1] - size[1]) / 2))

    def forward(self, x: Tensor) -> Tensor:
        return part_at(self.start, self.size).of(x)

    def extra_repr(self) -> str:
        return f"the middle {self.size[0]}×{self.size[1]}"


def part_at(start: Size, size: Size) -> SeenPart:
    """The part of this size (height, width) from `start` (top, left) on."""
    return SeenPart(*(slice(first, first + side) for first, side in zip(start, size)))


def seen_part(model: nn.Module, sides: Size) -> SeenPart:
    """The part of images with these sides (H, W) that the net of a model sees; without a centre crop
    in front of the net, the whole image."""
    crop = dict(model.named_children()).get("crop")
    if not isinstance(crop, CenterCrop):
        return part_at((0, 0), sides)
    ends = [
        (round(start * side / of), round((start + size) * side / of))
        for side, of, start, size in zip(sides, crop.of, crop.start, crop.size)
    ]
    return SeenPart(*(slice(first, max(first + 1, last)) for first, last in ends))


def enlarged(values: Tensor, part: SeenPart, sides: Size) -> Tensor:
    """Maps (n, 1, h, w) of what a net sees, enlarged to images with these sides: (n, H, W), 0 outside
    of the part that it sees."""
    inside = F.interpolate(values, part.sides, mode="bilinear", align_corners=False)[:, 0]
    if part.sides == sides:
        return inside
    whole = torch.zeros(len(values), *sides, dtype=inside.dtype, device=inside.device)
    part.of(whole).copy_(inside)
    return whole


def crop_of(shape: Shape, size: Size, share: float) -> Size:
    """The sides to which images of `shape` are resized, with their proportions, so that their middle
    `size` is `share` of the side that it fills (timm's crop_pct; torchvision's 224 of 256 is 0.875).
    """
    factor = max(int(part / share + 1e-6) / side for part, side in zip(size, shape[1:]))
    height, width = (max(part, int(side * factor + 1e-6)) for part, side in zip(size, shape[1:]))
    return (height, width)


def share_of(size: Size, of: Size) -> float:
    """The share of the side that it fills which the middle `size` of images `of` has (see `crop_of`)."""
    return max(part / side for part, side in zip(size, of))
