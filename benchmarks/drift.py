"""How often halves of one set are said to differ, and how often planted drifts are found.

    python benchmarks/drift.py digits                     # about 5 minutes on one core
    python benchmarks/drift.py '{folder: {path: PATH}}'   # your own images

Draws two sets of 100 and of 400 images of all images of a data set, without overlap, and compares them
as `stresslens data compare` does. Alarms are comparisons that say that B differs from A, by any of its
tests. For a drift, the images of the second set are changed; where a class share moves, a fifth of its
images become others of class 0. The AUROC is the mean over the draws, and so is the detectable one.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from stresslens.config.data_sets import loaded_data_set
from stresslens.config.yaml_source import parse_value
from stresslens.core.data import Data, Split
from stresslens.core.draws import Draws
from stresslens.core.splits import pooled
from stresslens.evaluation.data_comparison import DataComparison
from stresslens.evaluation.drift import compare_sets
from stresslens.evaluation.picture_set import PictureSet
from stresslens.metrics.intervals import wilson
from stresslens.plugins.corruptions.jpeg import jpeg
from stresslens.plugins.corruptions.noise import noise

SIZES = (100, 400)
NULL, PLANTED = 200, 40
DRIFTS: dict[str, Callable[[Tensor], Tensor]] = {
    "2 % brighter": lambda x: (1.02 * x).clamp(0, 1),
    "5 % brighter": lambda x: (1.05 * x).clamp(0, 1),
    "JPEG compression, severity 1": lambda x: jpeg(x, 1),
    "Gaussian noise, severity 1": lambda x: noise(x, Draws(0, torch.arange(len(x))), 1),
    "one pixel to the right": lambda x: x.roll(1, 3),
}


def sets(whole: Split, data: Data, n: int, seed: int, *, moved: bool) -> tuple[PictureSet, PictureSet]:
    """Two sets of n images; with `moved`, a fifth of the second are exchanged for images of class 0."""
    order = torch.randperm(len(whole), generator=torch.Generator().manual_seed(seed))
    rows = [order[:n], order[n : 2 * n]]
    if moved:
        rest = order[2 * n :]
        extra = rest[whole.labels[rest] == 0][: n // 5]
        others = torch.nonzero(whole.labels[rows[1]] != 0).flatten()[: len(extra)]
        rows[1] = rows[1].index_put((others,), extra)
    parts = [whole.select(each) for each in rows]
    found = [
        PictureSet(
            name,
            [f"{name}[{k}]" for k in range(n)],
            n,
            splits=[part],
            labels=part.labels.numpy(),
            classes=data.classes,
        )
        for name, part in zip("AB", parts)
    ]
    return found[0], found[1]


def changed(pictures: PictureSet, change: Callable[[Tensor], Tensor]) -> PictureSet:
    (split,) = pictures.splits
    return replace(pictures, splits=[replace(split, images=change(split.floats(split.images[:])), scale=1.0)])


def row(name: str, n: int, found: list[DataComparison]) -> None:
    alarms = wilson(sum(each.differs for each in found), len(found))
    classifier = sum(each.p_corrected <= 0.05 for each in found)
    area = np.mean([each.auroc.value for each in found])
    least = np.mean([each.detectable for each in found])
    print(
        f"| {name} | {n} | {100 * alarms.value:.1f} % ({100 * alarms.low:.1f} to {100 * alarms.high:.1f}) | "
        f"{100 * classifier / len(found):.1f} % | {len(found)} | {area:.3f} | {least:.3f} |",
        flush=True,
    )


if __name__ == "__main__":
    data = loaded_data_set(parse_value(sys.argv[1]))
    whole = pooled(data)
    print("| drift | images a set | said to differ | by the classifier | draws | AUROC | detectable |")
    print("|---|--:|---|--:|--:|--:|--:|")
    for n in SIZES:
        row("none", n, [compare_sets(*sets(whole, data, n, seed, moved=False)) for seed in range(NULL)])
        for name, change in DRIFTS.items():
            drawn = [sets(whole, data, n, seed, moved=False) for seed in range(PLANTED)]
            row(name, n, [compare_sets(a, changed(b, change)) for a, b in drawn])
        drawn = [sets(whole, data, n, seed, moved=True) for seed in range(PLANTED)]
        row("a class share moved", n, [compare_sets(*pair) for pair in drawn])
