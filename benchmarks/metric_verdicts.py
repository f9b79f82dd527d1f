"""Do verdicts hold by metrics other than accuracy? Simulated studies whose truth is known, judged by
stresslens's own statistics.

    python benchmarks/metric_verdicts.py            # 300 to 40 studies a row; minutes of CPU time
    python benchmarks/metric_verdicts.py --quick    # a tenth of the studies, up to 1,000 images

Three classes, equally frequent or 80, 15 and 5 % of the images, drawn anew for every study. Logits are
normal: of their variance 70 % is the image's own, shared by all recipes, 10 % the recipe's and 20 % each
seed's; the true class has more, by an amount that varies over the seeds by 10 % (not with one seed, which
is asked about its weights). "equal": two recipes of the same kind; the truth is 0. "unlike": b is
better at classes, is too sure, and leans towards the rare class; truths are means over 1.2 million
images, of 60 pairs of seeds.

Printed by metric: false verdicts where nothing differs, in % (target: at most 5), and the share of
intervals that cover the truth of the unlike recipes, in % (target: 95 or more).
"""

from __future__ import annotations

import itertools
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stresslens.metrics.named_metrics import Metric, metric_named
from stresslens.metrics.paired_values import paired_values

LEVEL = 0.95
SHARES = {"balanced": (1 / 3, 1 / 3, 1 / 3), "unbalanced": (0.8, 0.15, 0.05)}
STUDIES = {100: 300, 300: 200, 1000: 120, 10_000: 40}
SEEDS = (1, 3, 5)
COSTS = np.array([[0, 1, 1], [1, 0, 1], [10, 3, 0.0]])
NAMES = ("balanced_accuracy", "macro_f1", "f1@2", "auroc", "brier", "ece", "cross_entropy", "cost")
Labels = NDArray[np.int64]
Logits = NDArray[np.float64]


class Recipe(NamedTuple):
    """What the true class has more, the scale of all logits, and what the rare class has more."""

    lead: float
    scale: float
    lean: float


A, UNLIKE = Recipe(1.6, 1.5, 0.0), Recipe(1.7, 2.6, 1.0)


def study(
    n: int, seeds: int, classes: str, b: Recipe, varies: float, random: np.random.Generator
) -> tuple[list[list[Logits]], Labels]:
    """Logits (n, 3) of a and b for each seed, and the labels (n,) with an image of every class."""
    shares = np.array(SHARES[classes])
    labels = random.choice(3, size=n, p=shares)
    labels[:3] = np.arange(3)
    shared, found = random.standard_normal((n, 3)) * 0.7**0.5, []
    for lead, scale, lean in (A, b):
        middle = shared + random.standard_normal((n, 3)) * 0.1**0.5 + 0.5 * np.log(shares) + (0, 0, lean)
        of_seeds = []
        for _ in range(seeds):
            z = middle + random.standard_normal((n, 3)) * 0.2**0.5 + varies * random.standard_normal(3)
            z[np.arange(n), labels] += lead * (1 + varies * random.standard_normal())
            of_seeds.append(scale * z)
        found.append(of_seeds)
    return found, labels


def metrics_of(labels: Labels) -> list[Metric]:
    return [metric_named(name, labels, ["0", "1", "2"], COSTS if name == "cost" else None) for name in NAMES]


def given(metric: Metric, logits: Logits) -> Logits:
    if metric.needs != "order":
        return logits
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return np.asarray(powers / powers.sum(1, keepdims=True))


@lru_cache
def truth(classes: str, varies: float) -> list[float]:
    """The difference of the unlike recipes by each metric."""
    random = np.random.default_rng(99)
    differences = []
    for _ in range(60):
        (a, b), labels = study(20_000, 1, classes, UNLIKE, varies, random)
        differences.append(
            [
                float(m.values(given(m, b[0]), labels).mean() - m.values(given(m, a[0]), labels).mean())
                for m in metrics_of(labels)
            ]
        )
    return [float(each) for each in np.mean(differences, 0)]


def cell(images: int, classes: str, seeds: int, studies: int) -> tuple[NDArray[np.float64], ...]:
    """By metric, in %: false verdicts of equal recipes, and coverage of unlike ones; and their median
    widths."""
    varies = 0.1 if seeds > 1 else 0.0
    expected = truth(classes, varies)
    random = np.random.default_rng([images, list(SHARES).index(classes), seeds])
    false, covers, widths = (np.zeros((studies, len(NAMES))) for _ in range(3))
    for row, b in itertools.product(range(studies), (A, UNLIKE)):
        (first, second), labels = study(images, seeds, classes, b, varies, random)
        for column, metric in enumerate(metrics_of(labels)):
            one, other = ([given(metric, z) for z in logits] for logits in (first, second))
            values = [np.stack([metric.values(z, labels) for z in each]) for each in (one, other)]
            bias = 0.0
            if metric.bias is not None:
                bias = float(
                    np.mean([metric.bias(y, labels) - metric.bias(x, labels) for x, y in zip(one, other)])
                )
            delta = values[1] - values[0]
            paired = paired_values(delta, whole=metric.whole, unseen=metric.unseen, bias=bias)
            low, high = paired.bounds(LEVEL)
            if b is A:
                false[row, column] = low > 0 or high < 0
            else:
                covers[row, column] = low <= expected[column] <= high
                widths[row, column] = high - low
    return 100 * false.mean(0), 100 * covers.mean(0), np.median(widths, 0)


def in_cells(false: NDArray[np.float64], covers: NDArray[np.float64]) -> str:
    return " ".join(f"{f'{f:.1f} ({c:.0f})':>13}" for f, c in zip(false, covers, strict=True))


def main(words: list[str]) -> None:
    quick = "--quick" in words
    started = time.perf_counter()
    sizes = {n: max(20, k // 10) if quick else k for n, k in STUDIES.items() if n <= 1000 or not quick}
    cells = list(itertools.product(sizes, SHARES, SEEDS))
    print("false verdicts where nothing differs, % (coverage of the truth where recipes are unlike, %)\n")
    print(
        f"{'images':>7} {'classes':10} {'seeds':>5} {'studies':>7} "
        + " ".join(f"{n[:13]:>13}" for n in NAMES)
    )
    with ProcessPoolExecutor(2) as pool:
        found = pool.map(cell, *zip(*cells, strict=True), [sizes[n] for n, *_ in cells])
        pooled = np.zeros((2, len(NAMES)))
        for (images, classes, seeds), (false, covers, _) in zip(cells, found, strict=True):
            pooled += sizes[images] * np.array([false, covers])
            told = in_cells(false, covers)
            print(f"{images:7,} {classes:10} {seeds:5} {sizes[images]:7,} {told}", flush=True)
    studies = sum(sizes[n] for n, *_ in cells)
    print(f"{'all':>25} {studies:7,} {in_cells(*(pooled / studies))}")
    print(f"\n{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main(sys.argv[1:])
