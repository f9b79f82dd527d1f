"""A file of adversarial images: what it holds, and which images of a run's split they belong to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stresslens.core.arrays import as_shaped
from stresslens.core.ball import Ball
from stresslens.core.data import Split
from stresslens.core.errors import ConfigError, DataError
from stresslens.core.files import UnreadableRun, read_arrays
from stresslens.core.types import Finding
from stresslens.evaluation.inputs import check_inputs
from stresslens.robustness.recount_findings import checked
from stresslens.robustness.result_file import attacked_images
from stresslens.robustness.split_lookup import ROUNDING, digests, largest_difference, look_up, nearest

NAMES = {
    "adversarials": ("adversarials", "x_adv", "adv", "adversarial", "advs", "adv_images"),
    "images": ("images", "x", "x_test", "originals", "clean"),
    "labels": ("labels", "y", "y_test"),
    "index": ("index",),
    "rows": ("rows",),
    "radius": ("smallest", "eps", "epsilon", "radius"),
    "norm": ("norm",),
}
"""The accepted names of each array in an npz file; the first of them that the file has counts."""
HALF_LEVEL = 0.5 / 255 + 1e-6


@dataclass(frozen=True)
class Originals:
    """The images that m adversarial images belong to."""

    attacked: Split
    """Their images and true labels: those of the split, where the image is in it."""
    positions: Tensor
    """(m,) int64 their positions in the split; -1 where the image is not in it."""
    image: Tensor
    """(m,) int64 equal for adversarial images of the same image."""
    findings: list[Finding]


def read_adversarials(path: Path) -> dict[str, Any]:
    """The arrays of an npz file, by the keys of `NAMES`. Raises UnreadableRun, and ConfigError if
    it holds no adversarial images."""
    try:
        arrays = attacked_images(read_arrays(path, f"there is no {path}"))
    except UnreadableRun as error:
        if "holds one array" not in str(error):
            raise
        why = "expected an npz archive with adversarials (and index, or images and labels)"
        raise UnreadableRun(f"{path} holds one array; {why}") from None
    named = named_arrays(arrays)
    if "adversarials" not in named:
        names = ", ".join(NAMES["adversarials"])
        raise ConfigError(
            f"{path} holds {', '.join(arrays) or 'nothing'}; expected an array of one of these names: {names}"
        )
    return named


def named_arrays(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """The arrays by the keys of `NAMES`; others are left out."""
    return {key: arrays[name] for key, names in NAMES.items() for name in reversed(names) if name in arrays}


def originals_of(
    model: nn.Module,
    split: Split,
    arrays: Mapping[str, Any],
    index: Tensor | None,
    others: Mapping[str, Split],
) -> Originals:
    """The originals of a file's adversarial images.

    They are the file's `images`, looked up in the split, or else the images of the split at `index`,
    or else its first images. Images that are not in the split are looked up in `others`, the run's
    other splits. Raises DataError for a file that does not fit.
    """
    adversarials = arrays["adversarials"]
    m = len(adversarials) if np.ndim(adversarials) else 0
    images, labels = arrays.get("images"), arrays.get("labels")
    if images is not None and (np.ndim(images) < 3 or len(images) != m):
        images = None
    positions = torch.arange(min(m, len(split))) if index is None else index
    if len(positions) != m and (images is None or index is not None):
        raise DataError(
            f"{m} adversarial images but {len(positions)} places in the split; "
            "add `images` and `labels`, or `index`"
        )
    if images is None:
        return Originals(split.select(positions), positions, positions, [])
    images = as_shaped(images, split.shape, "images")
    given = check_inputs(model, images, np.zeros(m, np.int64) if labels is None else labels)
    if given.shape != split.shape:
        raise DataError(f"images have shape {given.shape}; those of the split {split.shape}")
    return _looked_up(given, split, index, labels is not None, others)


def _looked_up(
    given: Split, split: Split, index: Tensor | None, has_labels: bool, others: Mapping[str, Split]
) -> Originals:
    """The originals of a file that gives its own images and, if `has_labels`, labels."""
    x = given.floats(given.images[:]).to(torch.float32)
    found = look_up(x, split)
    positions, apart = found.positions, found.apart
    misplaced = torch.zeros(len(x), dtype=torch.bool)
    if index is not None:
        at_index = largest_difference(x, split, index)
        misplaced = at_index > ROUNDING
        positions = torch.where(misplaced, positions, index)
        apart = torch.where(misplaced, apart, at_index)
    known = positions >= 0
    labels = given.labels.clone()
    labels[known] = split.labels.cpu()[positions[known]]
    image, offset = positions.clone(), len(split)
    elsewhere: dict[str, int] = {}
    for name, other in others.items():
        rest = (image < 0).nonzero().flatten()
        if len(rest):
            there = look_up(x[rest], other).positions
            inside = there >= 0
            labels[rest[inside]] = other.labels.cpu()[there[inside]]
            image[rest[inside]] = there[inside] + offset
            elsewhere[name] = int(inside.sum())
        offset += len(other)
    unknown = (image < 0).nonzero().flatten()
    if len(unknown) and not has_labels:
        raise DataError(f"{len(unknown)} of {len(x)} images are in no split of the run; add their `labels`")
    image[unknown] = -1 - distinct_images(x[unknown])
    # an image that was rounded to 8 bits was attacked as it is there; a pixel moves half a level at most
    exact = known & (apart > HALF_LEVEL)
    x[exact] = split.floats(split.images[positions[exact]].cpu()).to(torch.float32)
    finding = _originals(len(x), known, apart, misplaced, positions, elsewhere)
    return Originals(Split(x, labels, 1.0), positions, image, [finding])


def distinct_images(x: Tensor) -> Tensor:
    """(m,) int64 equal for images (m, C, H, W) of equal pixels."""
    first: dict[bytes, int] = {}
    return torch.tensor([first.setdefault(key, row) for row, key in enumerate(digests(x))], dtype=torch.int64)


def _originals(
    m: int,
    known: Tensor,
    apart: Tensor,
    misplaced: Tensor,
    positions: Tensor,
    elsewhere: Mapping[str, int],
) -> Finding:
    """The finding on a file's own originals: are they the split's?"""
    missing, wrong = int((~known).sum()), int((misplaced & known).sum())
    rounded = int((known & (apart > 0)).sum())
    parts = []
    if missing:
        near = float(apart[~known].median())
        parts.append(
            f"{missing} of {m} originals are not in the split (pixels differ from the nearest by {near:.4g})"
        )
        parts += [f"{count} of them are {name} images" for name, count in elsewhere.items() if count]
    if wrong:
        parts.append(f"{wrong} of {m} originals are not the image at their index, but another of the split")
    serious = bool(parts)
    if rounded:
        most = float(apart[known].max())
        parts.append(f"{rounded} of {m} originals differ from the split's by rounding, at most {most:.4f}")
    return checked(
        "originals",
        m,
        bool(parts),
        "; ".join(parts) or f"all {m} originals are images of the split",
        "Give the images of the split as the model gets them, unchanged, and in float32; measure the radius "
        "from them.",
        "serious" if serious else "minor",
    )


def misplaced_adversarials(
    candidates: Tensor, outside: Tensor, ball: Ball, positions: Tensor, splits: Mapping[str, Split]
) -> Finding | None:
    """A finding if adversarial images that are `outside` (m,) the ball around their original are
    inside the ball around another image; None otherwise.

    `positions` (m,) are those of the originals in the first of the splits.
    """
    rows = outside.cpu().nonzero().flatten()
    found: dict[str, int] = {}
    shifts: list[int] = []
    first = next(iter(splits))
    for name, split in splits.items():
        if not len(rows):
            break
        x_adv = candidates.cpu()[rows]
        near, _ = nearest(x_adv, split)
        around = ball.select(rows)
        images = [split.floats(split.images[place].cpu()).float() for place in near.unbind(1)]
        here = torch.stack([around.holds(x_adv, each) for each in images], 1)
        inside = here.any(1)
        if inside.any():
            found[name] = int(inside.sum())
            place = near.gather(1, here.int().argmax(1, keepdim=True))[:, 0]
            if name == first:
                shifts += (place - positions[rows])[inside & (positions[rows] >= 0)].tolist()
            rows = rows[~inside]
    if sum(found.values()) < 2:
        return None
    parts = [f"{count} near other {name} images" for name, count in found.items()]
    shift = max(set(shifts), key=shifts.count) if shifts else 0
    if shifts and shifts.count(shift) >= 2 and 2 * shifts.count(shift) > len(shifts):
        parts.append(f"{shifts.count(shift)} fit the image {shift:+d} places on")
    return checked(
        "index",
        len(outside),
        True,
        f"{sum(found.values())} adversarial images belong to other images than those at their places: "
        + ", ".join(parts),
        "Give `index`, counted from 0, in the order of the adversarial images, and the split they are of.",
    )


def positions_of(values: Any, name: str, n: int) -> Tensor:
    """(m,) positions among n images. Raises DataError for anything else."""
    positions = np.asarray(values)
    if positions.ndim != 1 or positions.dtype.kind not in "iu":
        raise DataError(
            f"{name} is {positions.dtype} of shape {positions.shape}; "
            "expected whole numbers, one for each image"
        )
    if positions.size and (positions.min() < 0 or positions.max() >= n):
        raise DataError(
            f"{name} runs from {positions.min()} to {positions.max()}; there are {n} images (0 to {n - 1})"
        )
    return torch.as_tensor(positions.astype(np.int64))


def adversarial_tensor(adversarials: Any, expected: tuple[int, ...]) -> tuple[Tensor, bool]:
    """The adversarial images as float32 (m, C, H, W) in [0, 1], and whether they were stored in 8
    bits. Raises DataError for a wrong shape or type."""
    candidates = as_shaped(adversarials, expected[1:], "adversarial images")
    if tuple(candidates.shape) != expected:
        raise DataError(
            f"adversarial images have shape {tuple(candidates.shape)}; their originals {expected}"
        )
    if candidates.dtype == torch.uint8:
        return candidates.float() / 255, True
    if not candidates.is_floating_point():
        raise DataError(
            f"adversarial images are {candidates.dtype}; "
            "expected floats in [0, 1], or uint8 where 255 is white"
        )
    return candidates.to(torch.float32), False
