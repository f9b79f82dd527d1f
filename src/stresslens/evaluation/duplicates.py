"""Findings on duplicate images: exact and near, within and across splits, with two labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stresslens.core.data import Data, Split
from stresslens.core.image_files import digest
from stresslens.core.text import counted
from stresslens.core.types import Finding
from stresslens.evaluation.near_duplicates import (
    Pairs,
    copies_are_distinguishable,
    exact_pairs,
    near_pairs,
    planted_copies,
)

Severity = Literal["none", "minor", "serious"]

LISTED = 50
"""Most examples that a finding names."""
PLANTED = 200
"""So many images are copied in each way to measure which share of such copies is found."""
BY_PIXELS = "only copies with the same pixels are looked for"


def duplicate_findings(data: Data, small: NDArray[np.uint8], names: Sequence[str]) -> Iterator[Finding]:
    """Findings on the duplicates of all splits. `small` (N, 32, 32) has the small pictures of their
    images, `names` (N,) how each is called."""
    splits, sizes = list(data.splits), [len(split) for split in data.splits.values()]
    part = np.repeat(np.arange(len(splits)), sizes)  # (N,) which split each image is in
    labels = torch.cat([split.labels.cpu() for split in data.splits.values()]).numpy()
    exact = exact_pairs(np.concatenate([_digests(split) for split in data.splits.values()]), part)
    near = np.empty((0, 2), np.int64)
    yield from _duplicates("exact duplicates", exact, part, splits, names, "identical pixels", BY_PIXELS)
    if copies_are_distinguishable(small, labels):
        near = near_pairs(small, exact, f"checking {data.name}, pairs")
        what = "nearly identical images"
        yield from _duplicates("near duplicates", near, part, splits, names, what, _looked(data))
    else:
        yield _not_distinguishable(len(labels))
    yield _two_labels(exact, near, labels, [data.classes[label] for label in labels], names)


def _digests(split: Split) -> NDArray[np.void]:
    """(N,) digests of 16 bytes, equal if the pixels are equal."""
    if not isinstance(split.images, Tensor):
        return np.frombuffer(split.images.content(), "V16")
    images = np.ascontiguousarray(split.images.cpu().numpy())
    return np.frombuffer(b"".join(digest(image.tobytes()) for image in images), "V16")


def _looked(data: Data) -> str:
    """How near duplicates are looked for, and what share of planted copies is found."""
    rows = np.random.default_rng(0).permutation(sum(len(split) for split in data.splits.values()))[:PLANTED]
    grey, start = [], 0
    for split in data.splits.values():
        own = np.sort(rows[(rows >= start) & (rows < start + len(split))]) - start
        if len(own):
            grey.append(split.floats(split.images[torch.from_numpy(own)].cpu()).mean(1, keepdim=True))
        start += len(split)
    planted = planted_copies(torch.cat(grey))
    if not planted:
        return "every image has one colour only, so that there are no pictures to compare"
    shares = ", ".join(f"{found} {kind}" for kind, found, _ in planted)
    return (
        f"all pairs are compared, in grey, also mirrored and moved a little; of {planted[0].n} copies of "
        f"each kind that were made of these images, {shares} are found; stronger changes are not looked for"
    )


def _not_distinguishable(n: int) -> Finding:
    why = "images of one class are so similar here that copies cannot be distinguished from look-alikes"
    return Finding("near duplicates", "not checked", "none", why, n)


def _duplicates(
    audit: str,
    pairs: Pairs,
    part: NDArray[np.int64],
    splits: Sequence[str],
    names: Sequence[str],
    what: str,
    looked: str,
) -> Iterator[Finding]:
    """Duplicates within a split, which count twice, and across splits, which make scores too
    good. `looked` says how they were searched, and what that misses."""
    n = len(part)
    across = part[pairs[:, 0]] != part[pairs[:, 1]]
    for scope, chosen in (("within a split", pairs[~across]), ("across splits", pairs[across])):
        name = f"{audit} {scope}"
        if not len(chosen):
            yield Finding(name, "no sign", "none", f"none found among {n} images; {looked}", n)
            continue
        if scope == "across splits":
            held_out = np.unique(
                np.where(part[chosen[:, 0]] > part[chosen[:, 1]], chosen[:, 0], chosen[:, 1])
            )
            counts = ", ".join(
                f"{np.sum(part[held_out] == k)} of {np.sum(part == k)} {split}"
                for k, split in enumerate(splits)
                if k and np.any(part[held_out] == k)
            )
            worst = max(np.sum(part[held_out] == k) / np.sum(part == k) for k in range(1, len(splits)))
            severity: Severity = "serious" if worst >= 0.01 else "minor"
            evidence = f"{counts} images are in another split as well ({what})"
            remedy = (
                "keep all copies in one split: give what they share as `group`, or remove them; "
                "scores on copies are too good"
            )
        else:
            images = len(np.unique(chosen))
            severity = "serious" if images > n / 10 else "minor"
            evidence = f"{images} of {n} images have a copy in their own split ({what})"
            remedy = "remove the copies: they count twice, and intervals are too narrow"
        items = tuple(f"{names[b]} = {names[a]}" for a, b in chosen[:LISTED])
        yield Finding(name, "sign", severity, evidence, n, remedy, items)


def _two_labels(
    exact: Pairs, near: Pairs, labels: NDArray[np.int64], labelled: Sequence[str], names: Sequence[str]
) -> Finding:
    pairs = np.concatenate([exact, near])
    differ = pairs[labels[pairs[:, 0]] != labels[pairs[:, 1]]]
    n = len(labels)
    if not len(differ):
        return Finding(
            "one image, two labels",
            "no sign",
            "none",
            f"no duplicates with different labels found among {n} images; "
            "`data labels` looks for wrong labels of images without a copy",
            n,
        )
    items = tuple(f"{names[a]} ({labelled[a]}) = {names[b]} ({labelled[b]})" for a, b in differ[:LISTED])
    severity: Severity = "serious" if len(differ) > n / 1000 else "minor"
    return Finding(
        "one image, two labels",
        "sign",
        severity,
        f"{counted(len(differ), 'pair of duplicates has', 'pairs of duplicates have')} different labels",
        n,
        "correct the labels",
        items,
    )
