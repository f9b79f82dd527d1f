"""Findings on duplicate images: exact and near, within and across splits, with two labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stresslens.core.cache_folder import readable_caches, writable_cache
from stresslens.core.data import Data, Split
from stresslens.core.errors import StresslensError
from stresslens.core.files import read_json, write_json
from stresslens.core.image_files import digest
from stresslens.core.text import counted
from stresslens.core.types import Finding
from stresslens.evaluation.coarse_pairs import PARTNERS
from stresslens.evaluation.near_duplicates import (
    Pairs,
    copies_are_distinguishable,
    exact_pairs,
    near_pairs,
    planted_copies,
    small_pictures,
)

Severity = Literal["none", "minor", "serious"]

SEARCH = 2
"""Version of the search, in the names of the files in the cache."""
LISTED = 50
"""Most examples that a finding names."""
PLANTED = 200
"""So many images are copied in each way to measure which share of such copies is found."""
ACROSS_SPLITS = ("exact duplicates across splits", "near duplicates across splits")
"""The findings on copies of held-out images."""
BY_PIXELS = "only copies with the same pixels are looked for"


NO_PAIRS = np.empty((0, 2), np.int64)


@dataclass(frozen=True)
class _Duplicates:
    """Pairs of exact duplicates, and of near ones, which are None where copies cannot be distinguished
    from look-alikes."""

    exact: Pairs
    near: Pairs | None


def duplicate_findings(data: Data, small: NDArray[np.uint8], names: Sequence[str]) -> Iterator[Finding]:
    """Findings on the duplicates of all splits. `small` (N, 32, 32) has the small pictures of their
    images, `names` (N,) how each is called. What `copies_in_earlier_splits` needs is kept."""
    splits, part = list(data.splits), _parts(data)
    labels = _labels(data)
    pairs = _duplicates_of(data, small)
    _keep_copies(data, pairs)
    near = NO_PAIRS if pairs.near is None else pairs.near
    yield from _on_pairs("exact duplicates", pairs.exact, part, splits, names, "identical pixels", BY_PIXELS)
    if pairs.near is None:
        yield _not_distinguishable(len(labels))
    else:
        what = "nearly identical images"
        yield from _on_pairs("near duplicates", near, part, splits, names, what, _looked(data))
    yield _two_labels(pairs.exact, near, labels, [data.classes[label] for label in labels], names)


def copies_in_earlier_splits(data: Data) -> dict[str, list[int]]:
    """The positions, by split, of the images that have an exact or near copy in an earlier split: of
    validation images in train, of test images in train or validation.

    A split without such images is left out. They come from the cache if the same images were checked
    before.
    """
    for cache in readable_caches():
        with suppress(StresslensError):
            kept: dict[str, list[int]] = read_json(cache / "checks" / _file_of_copies(data))
            return kept
    pieces = ((split, piece) for split in data.splits.values() for piece in split.pieces(1024))
    small = [small_pictures(split.floats(piece.cpu()).mean(1, keepdim=True)) for split, piece in pieces]
    return _keep_copies(data, _duplicates_of(data, np.concatenate(small)))


def duplicate_pairs(split: Split) -> Pairs:
    """The pairs of exact duplicates within a split, and of near ones where copies can be distinguished
    from look-alikes."""
    small = np.concatenate(
        [small_pictures(split.floats(piece.cpu()).mean(1, keepdim=True)) for piece in split.pieces(1024)]
    )
    exact = exact_pairs(_digests(split), np.zeros(len(split), np.int64))
    if not copies_are_distinguishable(small, split.labels.cpu().numpy()):
        return exact
    return np.concatenate([exact, near_pairs(small, exact)])


def tells_of_copies(finding: Finding) -> bool:
    """Whether a finding says that images have copies in another split."""
    return finding.status == "sign" and finding.audit in ACROSS_SPLITS


def _duplicates_of(data: Data, small: NDArray[np.uint8]) -> _Duplicates:
    exact = exact_pairs(np.concatenate([_digests(split) for split in data.splits.values()]), _parts(data))
    if not copies_are_distinguishable(small, _labels(data)):
        return _Duplicates(exact, None)
    return _Duplicates(exact, near_pairs(small, exact, f"checking {data.name}, pairs"))


def _keep_copies(data: Data, pairs: _Duplicates) -> dict[str, list[int]]:
    """Puts the positions of copies into the cache, and returns them."""
    part = _parts(data)
    copied = _copied(part, pairs.exact, NO_PAIRS if pairs.near is None else pairs.near)
    of_split = {name: copied[part == k].nonzero()[0].tolist() for k, name in enumerate(data.splits)}
    copies = {name: positions for name, positions in of_split.items() if positions}
    with suppress(StresslensError):  # without a place for them they are looked for again
        write_json(writable_cache("checks") / _file_of_copies(data), copies)
    return copies


def _copied(part: NDArray[np.int64], exact: Pairs, near: Pairs) -> NDArray[np.bool_]:
    """(N,) whether each image has a copy in an earlier split than its own, `part` (N,). Of exact
    duplicates only the first one is in `near`, which then stands for all of them."""
    first = np.arange(len(part))
    np.minimum.at(first, exact[:, 1], exact[:, 0])
    earliest = part[first]
    for one, other in (near.T, near.T[::-1]):
        np.minimum.at(earliest, one, part[other])
    return earliest[first] < part


def _file_of_copies(data: Data) -> str:
    return f"{data.fingerprint}-copies-{SEARCH}.json"


def _parts(data: Data) -> NDArray[np.int64]:
    """(N,) which split each image is in."""
    return np.repeat(np.arange(len(data.splits)), [len(split) for split in data.splits.values()])


def _labels(data: Data) -> NDArray[np.int64]:
    labels: NDArray[np.int64] = torch.cat([split.labels.cpu() for split in data.splits.values()]).numpy()
    return labels


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
        "all pairs are compared, in grey, also mirrored and moved a little, and each image is aligned with "
        f"the {PARTNERS} later ones most like it; of {planted[0].n} copies of each kind that were made of "
        f"these images, {shares} are found; stronger changes are not looked for"
    )


def _not_distinguishable(n: int) -> Finding:
    why = "images of one class are so similar here that copies cannot be distinguished from look-alikes"
    return Finding("near duplicates", "not checked", "none", why, n)


def _on_pairs(
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
        places = tuple(chosen[:LISTED].ravel().tolist())
        yield Finding(name, "sign", severity, evidence, n, remedy, items, places)


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
        tuple(differ[:LISTED].ravel().tolist()),
    )
