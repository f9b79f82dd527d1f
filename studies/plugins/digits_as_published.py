"""The digits as the original lab prepared them: each split scaled by itself, no validation split."""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits

from stresslens.plugins import Data, Split, divide


def digits_as_published() -> Data:
    """1,437 training and 360 test images (stratified, seed 42), without a validation split.

    The pixels of *each* split are scaled to [0, 1] by their own minimum and maximum. For the test
    images this is the original's mistake: their scaling uses information from the test split.
    """
    bunch = load_digits()
    images = torch.from_numpy(bunch.images).float()[:, None]
    labels = torch.from_numpy(bunch.target).long()
    parts = divide(labels, {"test": 0.2}, seed=42)
    train, test = (
        Split(_rescaled(images[parts[name]]), labels[parts[name]], 1.0) for name in ("train", "test")
    )
    return Data(train, None, test, tuple(str(k) for k in range(10)), "digits, each split rescaled by itself")


def _rescaled(images: torch.Tensor) -> torch.Tensor:
    low, high = images.aminmax(dim=0)
    return (images - low) / torch.where(high > low, high - low, 1.0)
