"""Data sets for the data check, and what it finds in them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from stresslens.core.data import Data
from stresslens.core.types import Finding
from stresslens.evaluation.data_check import check_data


def photographs(n: int = 240, classes: int = 4, seed: int = 0) -> Data:
    """Random pictures, smooth but sharp, no two alike, whose colour and label have nothing to do with each
    other."""
    random = np.random.default_rng(seed)
    coarse = torch.from_numpy(random.random((n, 3, 6, 6), dtype=np.float32))
    fine = torch.nn.functional.interpolate(coarse, (32, 32), mode="bicubic")
    grain = torch.from_numpy(random.random((n, 1, 32, 32), dtype=np.float32)) / 10
    images = (255 * (fine + grain).clamp(0, 1)).to(torch.uint8)
    labels = torch.arange(n) % classes
    return Data.from_arrays(
        images, labels, classes=[f"class {k}" for k in range(classes)], validation=0.2, test=0.2
    )


def found(data: Data) -> dict[str, Finding]:
    return {finding.audit: finding for finding in check_data(data) if finding.status == "sign"}


def with_images(
    data: Data, split: str, rows: list[int], images: torch.Tensor, labels: torch.Tensor | None = None
) -> Data:
    part = data.splits[split]
    assert isinstance(part.images, torch.Tensor)
    pixels, own = part.images.clone(), part.labels.clone()
    pixels[rows] = images
    if labels is not None:
        own[rows] = labels
    return replace(data, **{split: replace(part, images=pixels, labels=own)})  # type: ignore[arg-type]
