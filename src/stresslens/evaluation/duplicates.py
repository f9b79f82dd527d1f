"""Findings on duplicate images: exact and near, within and across splits, with two labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stresslens.core.cache_folder import readable_caches, writable_cache
from stresslens.core.data import Data, Split
from stresslens.core.errors import StresslensError
from stresslens.core.files import read_json, write_json
from stresslens.core.findings import LISTED, no_sign, not_checked, sign
from stresslens.core.image_files import digest
from stresslens.core.picture_facts import PictureFacts
from stresslens.core.splits import floats_at, split_numbers
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
from stresslens.evaluation.record import DataRecord

SEARCH = 2
"""Version of the search, in the names of the files in the cache."""
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


def duplicate_findings(data: Data, small: NDArray[np.uint8], pictures: PictureFacts) -> Iterator[Finding]:
    """Findings on the duplicates of all splits. `small` (N, 32, 32) has the small pictures of their
    images, which `pictures` tells of. What `copies_in_earlier_splits` needs is kept."""
    splits, part, labels, names = list(data.splits), pictures.part, pictures.labels, pictures.names
    pairs = _duplicates_of(data, small, alike=pictures.alike)
    _keep_copies(data, pairs)
    near = NO_PAIRS if pairs.near is None else pairs.near
    yield from _on_pairs("exact duplicates", pairs.exact, part, splits, names, "identical pixels", BY_PIXELS)
    if pairs.near is None:
        why = "images of one class are so similar here that copies cannot be distinguished from look-alikes"
        yield not_checked("near duplicates", why, len(labels))
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
    small = np.concatenate([_small(split) for split in data.splits.values()])
    labels = torch.cat([split.labels.cpu() for split in data.splits.values()]).numpy()
    alike = not copies_are_distinguishable(small, labels)
    return _keep_copies(data, _duplicates_of(data, small, alike=alike))


def duplicate_pairs(split: Split) -> Pairs:
    """The pairs of exact duplicates within a split, and of near ones where copies can be distinguished
    from look-alikes."""
    small = _small(split)
    exact = exact_pairs(_digests(split), np.zeros(len(split), np.int64))
    if not copies_are_distinguishable(small, split.labels.cpu().numpy()):
        return exact
    return np.concatenate([exact, near_pairs(small, exact)])


def _tells_of_copies(finding: Finding) -> bool:
    """Whether a finding says that images have copies in another split."""
    return finding.status == "sign" and finding.audit in ACROSS_SPLITS


def copies_not_noted(data: DataRecord) -> bool:
    """Whether a record has findings on copies, but an earlier version did not note which images they are."""
    return not data.copies and any(map(_tells_of_copies, data.findings))


def _duplicates_of(data: Data, small: NDArray[np.uint8], *, alike: bool) -> _Duplicates:
    digests = np.concatenate([_digests(split) for split in data.splits.values()])
    exact = exact_pairs(digests, split_numbers(data))
    if alike:
        return _Duplicates(exact, None)
    return _Duplicates(exact, near_pairs(small, exact, f"checking {data.name}, pairs"))


def _keep_copies(data: Data, pairs: _Duplicates) -> dict[str, list[int]]:
    """Puts the positions of copies into the cache, and returns them."""
    part = split_numbers(data)
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


def _small(split: Split) -> NDArray[np.uint8]:
    """(N, 32, 32) small pictures."""
    pieces = (split.floats(piece.cpu()).mean(1, keepdim=True) for piece in split.pieces(1024))
    return np.concatenate(list(map(small_pictures, pieces)))


def _digests(split: Split) -> NDArray[np.void]:
    """(N,) digests of 16 bytes, equal if the pixels are equal."""
    if not isinstance(split.images, Tensor):
        return np.frombuffer(split.images.content(), "V16")
    images = np.ascontiguousarray(split.images.cpu().numpy())
    return np.frombuffer(b"".join(digest(image.tobytes()) for image in images), "V16")


def _looked(data: Data) -> str:
    """How near duplicates are looked for, and what share of planted copies is found."""
    rows = np.random.default_rng(0).permutation(sum(map(len, data.splits.values())))[:PLANTED]
    planted = planted_copies(floats_at(data, np.sort(rows).tolist()).mean(1, keepdim=True))
    if not planted:
        return "every image has one colour only, so that there are no pictures to compare"
    shares = ", ".join(f"{found} {kind}" for kind, found, _ in planted)
    return (
        "all pairs are compared, in grey, also mirrored and moved a little, and each image is aligned with "
        f"the {PARTNERS} later ones most like it; of {planted[0].n} copies of each kind that were made of "
        f"these images, {shares} are found; stronger changes are not looked for"
    )


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
            yield no_sign(name, f"none found among {n} images; {looked}", n)
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
            serious = bool(worst >= 0.01)
            evidence = f"{counts} images are in another split as well ({what})"
            remedy = (
                "keep all copies in one split: give what they share as `group`, or remove them; "
                "scores on copies are too good"
            )
        else:
            images = len(np.unique(chosen))
            serious = images > n / 10
            evidence = f"{images} of {n} images have a copy in their own split ({what})"
            remedy = "remove the copies: they count twice, and intervals are too narrow"
        items = [f"{names[b]} = {names[a]}" for a, b in chosen[:LISTED]]
        places = chosen[:LISTED].ravel().tolist()
        yield sign(name, evidence, n, remedy, serious=serious, items=items, places=places)


def _two_labels(
    exact: Pairs, near: Pairs, labels: NDArray[np.int64], labelled: Sequence[str], names: Sequence[str]
) -> Finding:
    pairs = np.concatenate([exact, near])
    differ = pairs[labels[pairs[:, 0]] != labels[pairs[:, 1]]]
    n = len(labels)
    if not len(differ):
        return no_sign(
            "one image, two labels",
            f"no duplicates with different labels found among {n} images; "
            "`data labels` looks for wrong labels of images without a copy",
            n,
        )
    return sign(
        "one image, two labels",
        f"{counted(len(differ), 'pair of duplicates has', 'pairs of duplicates have')} different labels",
        n,
        "correct the labels",
        serious=len(differ) > n / 1000,
        items=[f"{names[a]} ({labelled[a]}) = {names[b]} ({labelled[b]})" for a, b in differ[:LISTED]],
        places=differ[:LISTED].ravel().tolist(),
    )
