"""Images as people have them: tensors, arrays, lists, pictures and their files, with channels first
or last, become one tensor (N,C,H,W)."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from stresslens.core.errors import DataError, Notice, first_line
from stresslens.core.image_files import DecodedImage, Frame, picture, quietly

FEW = (1, 2, 3, 4)
"""So few values along the first axis of an image are its channels."""
LAST = (1, 3, 4)
"""So few along its last axis are grey, RGB or RGBA with channels last."""
DARK = 16
"""Bytes up to this value alone are probably not of images whose white is 255."""


def as_tensor(values: Any) -> Tensor:
    """An array as a tensor; it is copied only if torch cannot share it (read-only, negative strides,
    another byte order, long doubles)."""
    if isinstance(values, np.ndarray):
        if values.dtype.kind == "f" and values.dtype.itemsize > 8:
            values = values.astype(np.float64)
        elif not values.dtype.isnative:
            values = values.astype(values.dtype.newbyteorder("="))
        if not values.flags.writeable or any(stride < 0 for stride in values.strides):
            values = values.copy()
    return torch.as_tensor(values)


def numbers(values: Any, what: str) -> Tensor:
    """Converts a user's array to a tensor. Raises DataError if it holds anything but numbers."""
    try:
        return as_tensor(whole(values, what))
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"{what} are not an array of numbers: {first_line(error)}") from error


def whole(values: Any, what: str) -> Any:
    """A user's array with every value: sparse and quantized tensors become plain ones. Raises DataError
    for masked values, for tensors of several shapes, and for those without values."""
    if isinstance(values, np.ma.MaskedArray) and np.ma.getmaskarray(values).any():
        raise DataError(
            f"{what} are a masked array, and some values are masked; say what they are: {what}.filled(value)"
        )
    if not isinstance(values, Tensor):
        return values
    if values.is_nested or values.is_meta:
        why = (
            "nested, each part of its own shape" if values.is_nested else "on the device meta, without values"
        )
        raise DataError(f"{what} are a tensor that is {why}; expected a plain tensor")
    if values.is_quantized:
        return values.detach().dequantize()
    return values.detach().to_dense() if values.layout != torch.strided else values


def as_shaped(values: Any, shape: Sequence[int], what: str) -> Tensor:
    """A user's array as a tensor: grey images (N,H,W) with their channel, and images of shape (C,H,W)
    with channels first, also where the array has them last."""
    x = numbers(values, what)
    if x.ndim == 3:
        x = x[:, None]
    last = x.ndim == 4 and x.shape[1:] != tuple(shape) and (x.shape[3], *x.shape[1:3]) == tuple(shape)
    return x.permute(0, 3, 1, 2).contiguous() if last else x


def image_tensor(images: Any, count: int | None = None) -> Tensor:
    """A user's images as (N,C,H,W), uint8 or float32 or float64. Their range is not checked.

    `images` may be a tensor or an array (N,C,H,W), (N,H,W,C) or (N,H,W), one image without N, or a
    list of such images, of PIL images or of paths of image files. `count` is the number of labels,
    if they are known. Where the shape says nothing of where the channels are, a tensor has them
    first, and an array is refused. Bytes that are all dark get a Notice: they may be the digits of
    scikit-learn, whose white is 16. Raises DataError for everything else.
    """
    listed = images if isinstance(images, list | tuple) else [images]
    if listed and all(isinstance(each, Image.Image | str | os.PathLike) for each in listed):
        return torch.from_numpy(_pictures(listed))
    values, is_tensor = _one_array(images)
    if 0 in values.shape[:1]:
        raise DataError("there are no images")
    x = image_values(numbers(values, "images").detach())
    if x.dtype == torch.uint8 and x.numel() and 0 < (white := int(x.max())) <= DARK:
        warnings.warn(
            f"white is 255 in images of bytes, and the largest value of these is {white}: if it is their "
            f"white, give images / {white}; of a Split, give split.select(rows)",
            Notice,
            stacklevel=2,
        )
    if x.ndim == 3 or (x.ndim == 2 and count in (None, 1)):
        x = _with_four_axes(x, count)
    return _channels_first(x, is_tensor) if x.ndim == 4 else x


def _one_array(images: Any) -> tuple[Any, bool]:
    """The images as one tensor or array, and whether it came as tensors."""
    images = whole(images, "images")
    if isinstance(images, Tensor):
        return images, True
    if hasattr(images, "__array__"):
        images = np.asarray(images)
        if images.dtype != object:
            return images, False
        images = list(images.reshape(-1)) if images.ndim == 1 else images.tolist()
    if not isinstance(images, list | tuple):
        kind = type(images).__name__
        raise DataError(
            f"images are a {kind}; expected a tensor or an array (N, C, H, W), or a list of images"
        )
    images = [whole(each, "images") for each in images]
    tensors = bool(images) and all(isinstance(each, Tensor) for each in images)
    try:
        parts = [each.detach().cpu() if isinstance(each, Tensor) else np.asarray(each) for each in images]
    except ValueError as error:
        raise DataError(f"images are not an array of numbers: {first_line(error)}") from error
    for k, part in enumerate(parts):
        if part.shape != parts[0].shape:
            raise DataError(
                f"images differ in shape: the first is {tuple(parts[0].shape)}, image {k} is "
                f"{tuple(part.shape)}; {_to_one_size(parts[0], part)}"
            )
    if not parts:
        raise DataError("there are no images")
    if tensors:
        return torch.stack([numbers(part, "images") for part in parts]), True
    return np.stack([np.asarray(part) for part in parts]), False


def _to_one_size(first: Any, other: Any) -> str:
    """What to do with images of two shapes."""
    if first.ndim != other.ndim or first.ndim not in (2, 3):
        return "give all the same axes"
    last = first.ndim == 3 and place_of_channels(*first.shape) == "last"
    size = tuple(first.shape[:2] if last else first.shape[-2:])
    channels, others = (each.shape[2:] if last else each.shape[:-2] for each in (first, other))
    if channels != others:
        return "give all the same number of channels"
    plain = (first.ndim == 2 or last) and channels in ((), (3,), (4,))
    if isinstance(first, np.ndarray) and first.dtype == np.uint8 and plain:
        resized = f"np.asarray(PIL.Image.fromarray(image).resize({size[::-1]}))"
        return f"resize them to one size: images = [{resized} for image in images] (import PIL.Image)"
    before, after = ("[None, None]", "[0, 0]") if first.ndim == 2 else ("[None]", "[0]")
    if last:
        before, after = ".movedim(2, 0)[None]", "[0].movedim(0, 2)"
    resized = f"F.interpolate(torch.as_tensor(image){before}, {size}){after}"
    imported = "import torch.nn.functional as F"
    return f"resize them to one size: images = [{resized} for image in images] ({imported})"


def image_values(x: Tensor) -> Tensor:
    """Images as uint8, float32 or float64. Raises DataError for other numbers."""
    if x.dtype == torch.bool:
        return x.to(torch.uint8) * 255
    if x.dtype in (torch.float16, torch.bfloat16):
        return x.to(torch.float32)
    if x.dtype in (torch.uint8, torch.float32, torch.float64):
        return x
    said = f"images are {x.dtype}; expected floats in [0, 1], or uint8 where 255 is white"
    if x.is_complex() or not x.numel():
        raise DataError(said)
    low, high = int(x.long().min()), int(x.long().max())
    how = (
        "if 255 is white, convert them: images.astype('uint8'), for a tensor images.to(torch.uint8)"
        if low >= 0 and high <= 255
        else "divide them by the value of white"
    )
    raise DataError(f"{said}. They run from {low} to {high}; {how}")


def _with_four_axes(x: Tensor, count: int | None) -> Tensor:
    """Grey images (N,H,W), or one image, with all four axes."""
    if x.ndim == 2:
        return x[None, None]
    if count == 1 and len(x) != 1:
        return x[None]
    if count is None and len(x) != 1:
        if place_of_channels(*x.shape) == "last":
            return x[None]
        if len(x) in FEW:
            raise DataError(
                f"images have shape {tuple(x.shape)}: is this one image of {len(x)} channels, or are these "
                f"{len(x)} grey images? Write images[None] or images[:, None]"
            )
    return x[:, None]


def _channels_first(x: Tensor, is_tensor: bool) -> Tensor:
    place = place_of_channels(*x.shape[1:])
    if place == "last":
        return x.permute(0, 3, 1, 2).contiguous()
    if place == "unknown" and not is_tensor and x[0].numel() > 1:
        raise DataError(
            f"images have shape {tuple(x.shape)}, which does not say whether their channels are first "
            "(N, C, H, W) or last (N, H, W, C). Give a tensor, which has them first: "
            "torch.from_numpy(images), and .permute(0, 3, 1, 2) behind it if they are last"
        )
    return x


def place_of_channels(a: int, b: int, c: int) -> Literal["first", "last", "unknown"]:
    """Where the channels of an image of shape (a,b,c) are: the axis with few values, or else the one
    that leaves a square."""
    first, last = a in FEW, c in LAST
    if first and not last:
        return "first"
    if last and not first:
        return "unknown" if b == c else "last"
    if b == c != a:
        return "first"
    return "last" if a == b != c and not first else "unknown"


def _pictures(listed: Sequence[Any]) -> np.ndarray:
    """PIL images and image files as uint8 (N,C,H,W), each of its own size, which must be the same:
    three channels if one of them has colours, or else one."""

    def shown(each: Any, channels: int) -> DecodedImage:
        name = "the picture" if isinstance(each, Image.Image) else str(each)
        return picture(each, Frame(channels, None), name)

    with quietly():
        found = [shown(each, 3) for each in listed]
        if not any(each.coloured for each in found):
            found = [shown(each, 1) for each in listed]
    sizes = {(each.width, each.height): k for k, each in reversed(list(enumerate(found)))}
    if len(sizes) > 1:
        (first, _), (other, k) = sorted(sizes.items(), key=lambda item: item[1])[:2]
        opened = "image" if isinstance(listed[0], Image.Image) else "PIL.Image.open(image)"
        raise DataError(
            f"images differ in size: the first is {first[0]}×{first[1]} pixels, image {k} is "
            f"{other[0]}×{other[1]}; resize them to one size: "
            f"images = [{opened}.resize({first}) for image in images]"
        )
    return np.ascontiguousarray(np.stack([each.pixels for each in found]))
