"""Search for near duplicates: completeness and cost against brute force, and recall on planted copies.

    python benchmarks/duplicates.py DATA [IMAGES]       # a folder of photographs, cifar10, …

Brute force projects the coarse picture of every image, as it is and mirrored, on the space of every
earlier one, without the sieve; the candidates of both must be the same. Ratios are of CPU seconds in one
process on one thread, so that other work on the machine does not matter much. The second part asks how
many pairs are lost because an image is aligned with its `PARTNERS` most similar images at most. The last
one plants copies of 1,000 of the images, of each kind, and prints the share found with its interval.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from stresslens.cli.data import data_value
from stresslens.config.data_sets import loaded_data_set
from stresslens.core.data import Data
from stresslens.core.format import percent_sign
from stresslens.evaluation import coarse_pairs, near_duplicates
from stresslens.evaluation.near_duplicates import near_pairs, planted_copies, small_pictures
from stresslens.metrics.intervals import wilson

PLANTED = 1000
NO_PAIRS = np.empty((0, 2), np.int64)


def grey_images(data: Data, count: int) -> Tensor:
    """(N, 1, H, W) grey images of all splits, chosen at random with a fixed seed, in their order."""
    total = sum(len(split) for split in data.splits.values())
    rows = np.sort(np.random.default_rng(0).permutation(total)[:count])
    grey, start = [], 0
    for split in data.splits.values():
        own = torch.from_numpy(rows[(rows >= start) & (rows < start + len(split))] - start)
        if len(own):
            grey.append(split.floats(split.images[own].cpu()).mean(1, keepdim=True))
        start += len(split)
    return torch.cat(grey)


def by_brute_force(pictures: Tensor, columns: int = 8192) -> set[tuple[int, int, bool]]:
    """The candidates (i, j, mirrored) by the projections of all pairs, without `PARTNERS`."""
    coarse, found = coarse_pairs.coarse_pictures(pictures), set()
    mirror = coarse_pairs.coarse_pictures(pictures.flip(3))
    for start in range(0, len(pictures), 256):
        basis = coarse_pairs._basis(pictures[start : start + 256])
        for flipped, others in ((False, coarse), (True, mirror)):
            for column in range(start, len(others), columns):
                one = (basis.flatten(0, 1) @ others[column : column + columns].T).square_()
                squares = one.view(len(basis), 5, -1).sum(1)
                i, j = (places.numpy() for places in torch.nonzero(squares >= 0.94**2, as_tuple=True))
                later = j + column > i + start
                found |= {
                    (a + start, b + column, flipped) for a, b in zip(i[later].tolist(), j[later].tolist())
                }
    return found


def by_sieve(pictures: Tensor) -> set[tuple[int, int, bool]]:
    """The candidates of the search."""
    coarse = coarse_pairs.coarse_pictures(pictures)
    axes, found = coarse_pairs.sieve_axes(coarse), set()
    for start in range(0, len(pictures), near_duplicates.BLOCK):
        block = pictures[start : start + near_duplicates.BLOCK]
        i, j, flips = coarse_pairs.candidates(block, start, coarse, axes)
        found |= set(zip(i.tolist(), j.tolist(), flips.tolist()))
    return found


def seconds_of(compute: Callable[[], object]) -> tuple[float, object]:
    began = time.process_time()
    result = compute()
    return time.process_time() - began, result


def main() -> None:
    torch.set_num_threads(1)
    data = loaded_data_set(data_value(sys.argv[1]), base=Path.cwd())
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 20_000
    grey = grey_images(data, count)
    small = small_pictures(grey)
    pictures = torch.from_numpy(small[np.ptp(small, axis=(1, 2)) > 0])[:, None].float() / 255
    partners = coarse_pairs.PARTNERS
    whole, pairs = seconds_of(lambda: near_pairs(small, NO_PAIRS))
    coarse_pairs.PARTNERS = len(pictures)
    brute, expected = seconds_of(lambda: by_brute_force(pictures))
    sieved, found = seconds_of(lambda: by_sieve(pictures))
    print(f"{data.name}, {len(pictures):,} images, {len(expected):,} candidates by brute force")
    print(f"  the sieve has the same: {found == expected}; brute force / sieve: {brute / sieved:.1f}")
    print(f"  brute force / whole search with alignment: {brute / whole:.1f}")
    every = near_pairs(small, NO_PAIRS)
    lost = {tuple(p) for p in every} - {tuple(p) for p in pairs}
    print(f"  {len(pairs)} pairs; without the limit of {partners} partners {len(every)}, {len(lost)} lost")
    for kind, seen, n in planted_copies(
        grey[torch.randperm(len(grey), generator=torch.manual_seed(0))[:PLANTED]]
    ):
        print(f"  {kind:30} {percent_sign(wilson(seen, n))}, n = {n}")


if __name__ == "__main__":
    main()
