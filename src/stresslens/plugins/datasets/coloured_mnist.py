from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from stresslens.core.data import Data, Split
from stresslens.core.draws import Draws, mix
from stresslens.core.sampling import divide
from stresslens.core.splits import divided
from stresslens.core.types import Count, NonNegative, Seed
from stresslens.plugins.datasets._digits import digit_images
from stresslens.plugins.datasets._mnist_files import mnist_splits

COLOURS = {
    "red": (225, 35, 35),
    "orange": (255, 135, 15),
    "yellow": (255, 230, 40),
    "green": (35, 180, 55),
    "cyan": (40, 220, 230),
    "blue": (40, 70, 240),
    "purple": (130, 45, 185),
    "pink": (255, 130, 190),
    "white": (240, 240, 240),
    "grey": (125, 125, 125),
}
JITTER = 15
"""Largest difference of a channel from the named colour's channel, of 255."""
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
PAIRS = tuple(f"{colour} {digit}" for colour in COLOURS for digit in DIGITS)


def coloured_mnist(
    *,
    held_out: Annotated[int, Field(ge=0, le=90)] = 10,
    validation: NonNegative = 0.1,
    subset: Count | None = None,
    source: Literal["mnist", "digits"] = "mnist",
    seed: Seed = 42,
) -> Data:
    """Coloured MNIST: digits in one of ten colours on black, with 100 classes such as "red three".

    Images are 28×28 pixels. `held_out` pairs are only in the test images, which have all 100 pairs.
    The first ten held-out pairs are a diagonal: every colour and every digit occurs in training,
    but not these pairs. Their accuracy shows whether a model has learned colour and digit
    separately. The column "pair" says whether a pair is held out; "colour" and "digit" are its
    parts. An image's colour is drawn from `seed` and its position in the file; each channel is
    within 15 of 255 of the named colour.

    `validation` (a count or a share of the training images) and `subset`, which keeps that many
    training images, are stratified by digit. `source: digits` uses scikit-learn's 1,797 digits at
    that size instead, a fifth of them as test images, without a download.
    """
    parts = mnist_splits() if source == "mnist" else _digits(seed)
    train, test = (replace(part, columns={"place": np.arange(len(part))}) for part in parts)
    grey = divided(train, test, DIGITS, "coloured_mnist", validation=validation, subset=subset, seed=seed)
    in_training = _pairs(held_out)
    every_pair = torch.ones_like(in_training)
    coloured = {
        name: _coloured(split, in_training, every_pair if name == "test" else in_training, seed, name)
        for name, split in grey.splits.items()
    }
    return replace(
        grey,
        train=coloured["train"],
        validation=coloured.get("validation"),
        test=coloured["test"],
        classes=PAIRS,
        slices=("pair", "colour", "digit"),
    )


def _pairs(held_out: int) -> Tensor:
    """(10, 10) which colours (rows) and digits (columns) occur together in training.

    The held-out pairs are diagonals.
    """
    colour, digit = torch.meshgrid(torch.arange(10), torch.arange(10), indexing="ij")
    return (colour - digit) % 10 * 10 + digit >= held_out


def _coloured(split: Split, seen: Tensor, allowed: Tensor, seed: int, name: str) -> Split:
    """Colours grey images with colours that are allowed for their digits; labels are pairs."""
    draws = Draws(mix(seed, name == "test"), torch.from_numpy(split.columns["place"]))
    digit = split.labels
    colour = (draws.uniform(10) * allowed.T[digit]).argmax(1)
    jitter = draws.integers(2 * JITTER + 1, 3) - JITTER
    rgb = (torch.tensor(list(COLOURS.values()))[colour] + jitter).clamp(0, 255)
    images = (split.images[:].to(torch.int32) * rgb[:, :, None, None].to(torch.int32) // 255).to(torch.uint8)
    columns = {
        "pair": np.where(seen[colour, digit], "seen", "held out"),
        "colour": np.array(list(COLOURS))[colour],
        "digit": np.array(DIGITS)[digit],
    }
    return Split(images, 10 * colour + digit, columns=columns)


def _digits(seed: int) -> tuple[Split, Split]:
    images, labels = digit_images()
    small = images.float()[:, None] * (255 / 16)
    whole = Split(F.interpolate(small, (28, 28), mode="bilinear").round().to(torch.uint8), labels)
    rows = divide(whole.labels, {"test": 0.2}, seed=seed, names=DIGITS)
    return whole.select(rows["train"]), whole.select(rows["test"])
