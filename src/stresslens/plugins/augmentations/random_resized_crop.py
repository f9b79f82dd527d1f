from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from stresslens.core.draws import Draws
from stresslens.core.types import Chance, Count
from stresslens.plugins.augmentations._box import boxes, first, start
from stresslens.plugins.augmentations._chance import chosen
from stresslens.plugins.augmentations._ranges import PositiveRange, ShareRange
from stresslens.plugins.augmentations._windows import shown_size


def random_resized_crop(
    x: Tensor,
    y: Tensor,
    draws: Draws,
    *,
    size: Count | tuple[Count, Count] | None = None,
    scale: ShareRange = (0.08, 1.0),
    ratio: PositiveRange = (0.75, 4 / 3),
    chance: Chance = 1.0,
) -> tuple[Tensor, Tensor]:
    """Shows a random part of each image, resized to `size` (Szegedy et al. 2015).

    `size` is (height, width) or one number for both; by default the size of the images. The part
    has a share of the area from `scale` and a ratio of width to height from `ratio`. If none of ten
    drawn parts is inside the image, it is the middle one. An image is cropped with probability
    `chance`; of the others the whole is resized. Resizing is bilinear and antialiased.
    """
    height, width = x.shape[2:]
    mask = chosen(draws, chance)
    drawn_width, drawn_height, place = boxes(draws, (height, width), scale, ratio)
    w, h = drawn_width.round(), drawn_height.round()
    fits = (w > 0) & (w <= width) & (h > 0) & (h <= height)  # (N, attempts)
    at = first(fits)[:, None]
    found, middle = fits.any(1), _middle(height, width, ratio)
    w, h = (
        values.gather(1, at)[:, 0].where(found, side).where(mask, whole)
        for values, side, whole in ((w, middle[1], width), (h, middle[0], height))
    )
    top, left = start(place[:, 0], height - h), start(place[:, 1], width - w)
    top, left = top.where(found, (height - middle[0]) // 2), left.where(found, (width - middle[1]) // 2)
    top, left = top.where(mask, 0), left.where(mask, 0)
    rows, columns = shown_size(size=size) or (height, width)
    return _resized(x, (top, left, h.long(), w.long()), (rows, columns)).clamp_(0, 1), y


def _middle(height: int, width: int, ratio: tuple[float, float]) -> tuple[int, int]:
    """The sides (H, W) of the largest part whose ratio of width to height is in the range."""
    if width / height < ratio[0]:
        return round(width / ratio[0]), width
    if width / height > ratio[1]:
        return height, round(height * ratio[1])
    return height, width


def _resized(x: Tensor, boxes: tuple[Tensor, Tensor, Tensor, Tensor], size: tuple[int, int]) -> Tensor:
    """The boxes (top, left, height, width; each (N,)) of images x (N, C, H, W), resized to `size`."""
    top, left, height, width = boxes
    if x.device.type != "cpu":
        return _resampled(_resampled(x, top, height, size[0], 2), left, width, size[1], 3)
    resized = torch.empty(*x.shape[:2], *size, dtype=x.dtype)
    for image, new, *box in zip(x, resized, *(values.tolist() for values in boxes)):
        first_row, first_column, rows, columns = box
        part = image[None, :, first_row : first_row + rows, first_column : first_column + columns]
        new.copy_(F.interpolate(part, size, mode="bilinear", antialias=True, align_corners=False)[0])
    return resized


def _resampled(x: Tensor, start: Tensor, length: Tensor, size: int, dim: int) -> Tensor:
    """Images x (N, C, H, W) whose pixels `start` … `start + length` (both (N,)) along `dim` are resized
    to `size`, bilinearly and antialiased as in torch's interpolate."""
    scale = (length.double() / size)[:, None]  # (N, 1)
    support = scale.clamp_min(1)
    centre = (torch.arange(size, device=x.device) + 0.5) * scale  # (N, size)
    lowest = (centre - support + 0.5).floor().clamp_min(0)
    taps = math.floor(2 * max(1.0, x.shape[dim] / size)) + 1
    shape = [len(x), 1, 1, 1]
    shape[dim] = size
    sizes = [*x.shape]
    sizes[dim] = size
    total = torch.zeros_like(centre)
    result = torch.zeros(sizes, dtype=x.dtype, device=x.device)
    weights = []
    for tap in range(taps):
        position = lowest + tap
        weight = (1 - ((position + 0.5 - centre) / support).abs()).clamp_min(0)
        weight = weight.where(position < length[:, None], 0)
        weights.append((position, weight))
        total = total + weight
    for position, weight in weights:
        place = (position + start[:, None]).clamp_max(x.shape[dim] - 1).long()
        share = (weight / total).to(x.dtype).reshape(shape)
        result.addcmul_(x.gather(dim, place.reshape(shape).expand(sizes)), share)
    return result
