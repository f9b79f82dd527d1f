"""Data sets with one fault each, by the check that must find it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from checked_data import photographs
from torch import Tensor

from stresslens.core.blur import blurred
from stresslens.core.data import Data, Split


def changed(data: Data, change: Callable[[str, Split, Tensor], Tensor]) -> Data:
    """The data with the images (N, C, H, W) in [0, 1] of each split changed."""
    splits: dict[str, Any] = {}
    for name, split in data.splits.items():
        images = change(name, split, split.floats(split.images[:]))
        splits[name] = replace(split, images=(255 * images.clamp(0, 1)).round().to(torch.uint8))
    return replace(data, **splits)


def some(change: Callable[[Tensor], Tensor]) -> Data:
    """Photographs, three of the training images changed."""

    def first(name: str, split: Split, x: Tensor) -> Tensor:
        return torch.cat([change(x[:3]), x[3:]]) if name == "train" else x

    return changed(photographs(), first)


def of_class(change: Callable[[Tensor], Tensor], label: int = 1, **options: int) -> Data:
    """Photographs, those of one class changed in every split."""

    def own(name: str, split: Split, x: Tensor) -> Tensor:
        return torch.where((split.labels == label)[:, None, None, None], change(x), x)

    return changed(photographs(**options), own)


def with_columns(data: Data, **columns: Callable[[str, Split], Any]) -> Data:
    """The data with a column for each name, made from a split's name and the split."""
    splits: dict[str, Any] = {
        name: replace(split, columns={key: np.array(of(name, split)) for key, of in columns.items()})
        for name, split in data.splits.items()
    }
    return replace(data, **splits)


def by_class(*values: Any) -> Callable[[str, Split], Any]:
    """A column with one value for each class."""
    return lambda name, split: np.array(values, dtype=object)[split.labels.numpy() % len(values)]


def barred(x: Tensor) -> Tensor:
    x = x.clone()
    x[:, :, :4] = x[:, :, -4:] = 0
    return x


def marked(x: Tensor) -> Tensor:
    x = x.clone()
    x[:, :, 25:31, 25:31] = (torch.arange(6)[:, None] // 2 + torch.arange(6) // 2) % 2.0
    return x


def warm(n: int = 400) -> Data:
    """Photographs that are redder where they are brighter, so that the order of the colours shows."""

    def redder(name: str, split: Split, x: Tensor) -> Tensor:
        light = x.mean(1, keepdim=True)
        return torch.cat([0.6 * light + 0.4 * light**0.5, light, 0.6 * light + 0.4 * light**2], 1)

    return changed(photographs(n), redder)


def exchanged(data: Data, split: str) -> Data:
    return changed(data, lambda name, _, x: x.flip(1) if name == split else x)


def wrong_names(name: str, split: Split) -> Any:
    own = [
        f"{name}/class {label}/{('abc', 'horse')[label % 2]}_{k}.jpg" for k, label in enumerate(split.labels)
    ]
    return np.array(["test/HorseRider12.jpg", *own[1:]] if name == "test" else own, dtype=object)


def counts(*sizes: int) -> Data:
    labels = torch.cat([torch.full((n,), k) for k, n in enumerate(sizes)])
    images = photographs(3 * len(labels)).train.images[: len(labels)]
    return Data(Split(images, labels), None, None, tuple(f"class {k}" for k in range(len(sizes))))


def without_a_class() -> Data:
    data = photographs()
    assert data.test is not None
    return replace(data, test=data.test.select((data.test.labels != 2).nonzero().flatten()))


FAULTS: dict[str, Callable[[], Data]] = {
    "blurred_images": lambda: some(lambda x: blurred(x, 3.0)),
    "borders": lambda: of_class(barred),
    "class_imbalance": lambda: counts(100, 30),
    "class_names": lambda: replace(photographs(), classes=("cat", "Cat ", "dog", "emu")),
    "colour_order": lambda: exchanged(warm(), "test"),
    "constant_images": lambda: some(torch.zeros_like),
    "dark_images": lambda: some(lambda x: x / 5),
    "file_names": lambda: with_columns(
        replace(photographs(classes=2), classes=("abc", "horse")), file=wrong_names
    ),
    "group_leakage": lambda: with_columns(photographs(), group=lambda name, split: ["one"] * len(split)),
    "label_from_camera": lambda: with_columns(photographs(), camera=by_class("A", "B", "C", "D")),
    "label_from_file_size": lambda: with_columns(photographs(), bytes=by_class(10, 20, 30, 40)),
    "label_from_file_type": lambda: with_columns(photographs(), format=by_class("PNG", "GIF", "GIF", "BMP")),
    "label_from_mean_colour": lambda: of_class(lambda x: x * 0.2 + 0.8, classes=2),
    "label_from_picture_size": lambda: with_columns(
        photographs(), width=by_class(10, 20, 30, 40), height=by_class(10, 20, 30, 40)
    ),
    "missing_classes": without_a_class,
    "nearly_uniform_images": lambda: some(lambda x: 0.5 + (x - 0.5) / 50),
    "over_exposed_images": lambda: some(lambda x: 0.8 + x / 5),
    "shared_marks": lambda: of_class(marked, n=400),
    "tiny_classes": lambda: counts(30, 12),
    "unusual_sizes": lambda: with_columns(
        photographs(),
        width=lambda name, split: [40] * (len(split) - 1) + [400],
        height=lambda name, split: [40] * len(split),
    ),
}
