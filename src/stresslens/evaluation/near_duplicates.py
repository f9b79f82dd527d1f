"""Duplicate images: exact by the pixels' digests, near by perceptual hash and thumbnail
correlation."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

HAMMING = 8
"""Most bits of 64 in which the perceptual hashes of near duplicates differ."""
ALIKE = 0.93
"""Two images with near hashes are near duplicates if their 16×16 thumbnails correlate at least so
much. Of 500 such pairs in CIFAR-10, 70 were looked at, and every one showed the same photograph."""
LOOK_ALIKE, MOST_LOOK_ALIKES = 0.85, 0.005
"""Correlation from which on two images are look-alikes, and the largest share of look-alikes among
random pairs of one class with which near duplicates are searched. The share is 0.0004 for
photographs (CIFAR-10), but 0.03 (MNIST) and 0.16 (digits) for handwriting, where copies cannot be
distinguished from look-alikes."""
MOST_ALIKE = 0.1
"""Largest share of random pairs of one class that correlate like copies. With a camera that does
not move all of them do."""
NEIGHBOURS = 200
"""Each image is compared with at most so many images that share a quarter of its hash."""

BY_PIXELS = "only copies with the same pixels are looked for"
BY_HASHES = (
    "a pair is found if perceptual hashes and thumbnails are nearly equal; some whose hashes differ in "
    "more than 3 bits are missed, and mirrored, cropped, shifted or turned copies are not looked for"
)
"""How duplicates are looked for, and what that misses."""

Pairs = NDArray[np.int64]
"""(P, 2) positions in all splits together, the smaller first."""


def perceptual_hash(grey: Tensor) -> NDArray[np.uint64]:
    """(N,) hashes of 64 bits of grey images (N, 1, H, W).

    A bit says whether one of the lowest 8×8 frequencies of the cosine transform is above their
    median (Zauner 2010, pHash).
    """
    square = F.interpolate(grey, (32, 32), mode="bilinear", antialias=True)[:, 0]
    k, x = torch.arange(8)[:, None], torch.arange(32)[None]
    cosines = torch.cos(torch.pi * (x + 0.5) * k / 32)  # (8, 32)
    low = (cosines @ square @ cosines.t()).flatten(1)
    bits = (low > low[:, 1:].median(1, keepdim=True).values).numpy()
    packed = np.packbits(bits, axis=1)
    return np.ascontiguousarray(packed).view(np.uint64)[:, 0]


def correlation_thumbnails(grey: Tensor) -> NDArray[np.float32]:
    """(N, 256) thumbnails of 16×16, mean 0 and length 1: their dot products are correlations."""
    small = (
        F.adaptive_avg_pool2d(grey, 16).flatten(1)
        if min(grey.shape[2:]) > 16
        else F.interpolate(grey, (16, 16)).flatten(1)
    )
    return F.normalize(small - small.mean(1, keepdim=True)).numpy()


def exact_pairs(digests: NDArray[np.void], part: NDArray[np.int64]) -> Pairs:
    """Pairs of images with equal digests; `part` (N,) is the split of each image.

    Each image is paired with the first one that has its pixels, and with the first such of its own
    split.
    """
    _, group = np.unique(digests, return_inverse=True)
    _, group_in_split = np.unique(np.stack([group, part]), axis=1, return_inverse=True)
    positions = np.arange(len(digests))
    pairs = []
    for groups in (group, group_in_split):
        first = np.full(groups.max() + 1, len(digests))
        np.minimum.at(first, groups, positions)
        pairs.append(np.stack([first[groups], positions], 1)[first[groups] != positions])
    return np.unique(np.concatenate(pairs), axis=0)


def near_pairs(hashes: NDArray[np.uint64], thumbnails: NDArray[np.float32], exact: Pairs) -> Pairs:
    """Pairs of near duplicates, without exact duplicates.

    Their hashes share one of four quarters and differ in at most `HAMMING` bits, and their
    thumbnails correlate by at least `ALIKE`.
    """
    pairs: list[Pairs] = []
    varied = np.flatnonzero(np.linalg.norm(thumbnails, axis=1) > 0.5)  # constant images have no correlation
    varied = np.setdiff1d(varied, exact[:, 1])
    for quarter in range(4):
        key = (hashes[varied] >> np.uint64(16 * quarter)) & np.uint64(0xFFFF)
        order = varied[np.argsort(key, kind="stable")]
        sorted_keys = np.sort(key, kind="stable")
        for offset in range(1, min(len(order), NEIGHBOURS)):
            same_key = np.flatnonzero(sorted_keys[offset:] == sorted_keys[:-offset])
            if not len(same_key):
                break
            a, b = order[same_key], order[same_key + offset]
            close = np.bitwise_count(hashes[a] ^ hashes[b]) <= HAMMING
            a, b = a[close], b[close]
            alike = np.einsum("nd,nd->n", thumbnails[a], thumbnails[b]) >= ALIKE
            pairs.append(np.sort(np.stack([a[alike], b[alike]], 1), 1))
    return np.unique(np.concatenate([np.empty((0, 2), np.int64), *pairs]), axis=0)


def copies_are_distinguishable(thumbnails: NDArray[np.float32], labels: NDArray[np.int64]) -> bool:
    """Whether images of one class differ so much that two similar ones must be copies.

    This is estimated from 200,000 random pairs of one class.
    """
    random = np.random.default_rng(0)
    order = random.permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    look_alikes = copies = pairs = 0
    for shift in range(1, 1 + max(1, 200_000 // len(labels))):
        a, b = order[shift:], order[:-shift]
        same = labels[a] == labels[b]
        correlation = np.einsum("nd,nd->n", thumbnails[a[same]], thumbnails[b[same]])
        look_alikes += int(((correlation >= LOOK_ALIKE) & (correlation < ALIKE)).sum())
        copies += int((correlation >= ALIKE).sum())
        pairs += int(same.sum())
    return look_alikes <= MOST_LOOK_ALIKES * pairs and copies <= MOST_ALIKE * pairs
