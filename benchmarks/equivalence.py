"""Do verdicts of sameness, of "not worse", of the best, and over data sets hold? Simulated.

    python benchmarks/equivalence.py            # 500 studies a cell; also a part of verdicts.py
    python benchmarks/equivalence.py --quick    # 100 studies a cell

False "the same" and false "not worse" are judged where the true difference is exactly the margin: both may be
said in at most 5 % of the studies. Power is that at equal recipes, and the plan's promise. The set of those
that may be the best must contain the truly best in at least 95 %, judged where another is equally good. The
average over data sets, and the difference on a new one, must be covered in 95 %.
"""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from verdicts import AT_ONCE, MIXTURES, ease, worlds

from stresslens.comparison.data_sets import NORMAL
from stresslens.comparison.difference import LEVEL
from stresslens.metrics.equivalence import ALPHA, room
from stresslens.metrics.meta_analysis import pooled_effects
from stresslens.metrics.random_effects import (
    FEWEST_SEEDS,
    SumsOfSquares,
    moments,
    paired_random_effects,
    shares,
    skewed_ends,
)

Array = NDArray[np.floating[Any]]

SEEDS = (1, 3, 5, 10)
IMAGES = {100: 0.05, 360: 0.02, 2000: 0.005, 10_000: 0.005}
"""Numbers of images, and the margin that is asked of them."""
ACCURACIES = (0.55, 0.95, 0.995)
"""Of the better recipe; the other is worse by the margin."""
DEVIATIONS = {
    "none": (0.0, 0.0),
    "small": (0.05, 0.05),
    "large": (0.3, 0.3),
    "unequal": (0.05, 0.3),
    "turned": (0.3, 0.05),
}
"""Of the seeds' parts of the two recipes; see verdicts.py."""


def shown(sums: Sequence[SumsOfSquares], seeds: int, margin: float) -> tuple[Array, Array]:
    """Whether sameness, and "b is not worse than a", are shown (studies,); `sums` are those of the difference
    and those of a and b."""
    table, more = paired_random_effects(sums[0]), room(sums[0].of_images.shape[-1], ALPHA)
    half = table.margin(2 * ALPHA)
    low, high = table.mean - half, table.mean + half
    if seeds >= FEWEST_SEEDS:
        below, above = skewed_ends(shares(sums[1]), shares(sums[2]), table, level=1 - 2 * ALPHA)
        low, high = np.minimum(low, below), np.maximum(high, above)
    not_worse = low - more > -margin
    return not_worse & (high + more < margin), not_worse


class Cell(NamedTuple):
    mixture: str
    images: int
    margin: float
    better: float
    """The accuracy of the better recipe; the other is worse by the margin, or equal."""
    deviations: str


Rates = dict[tuple[str, int], float]
"""A share of studies by what was said and the number of seeds."""


def answers(
    world: Array, accuracies: tuple[float, ...], deviations: str, random: np.random.Generator
) -> Array:
    """Right answers (studies, recipes, seeds, images), 0 or 1."""
    studies, recipes, seeds, _ = world.shape
    deviation: Any = np.resize(DEVIATIONS[deviations], recipes)[:, None]
    seedwise = ease(accuracies, deviation, seeds, studies, random)
    return (world > -seedwise[..., None]).astype(np.float32)


def batches(
    mixture: str, images: int, recipes: int, studies: int, random: np.random.Generator
) -> Iterator[Array]:
    """Worlds of the studies, as many at once as memory is meant for."""
    batch = max(1, AT_ONCE // (recipes * SEEDS[-1] * images))
    while studies > 0:
        yield worlds(mixture, images, recipes, SEEDS[-1], min(batch, studies), random)
        studies -= batch


def sums_by_seeds(delta: Array) -> dict[int, SumsOfSquares]:
    """The `moments` of the first seeds of differences (studies, seeds, images), for each of `SEEDS`; sums of
    -1, 0 and 1 are exact in float32."""
    n = delta.shape[-1]
    of_seeds, squares = delta.sum(-1) / float(n), np.einsum("...i,...i->...", delta, delta)
    return {
        seeds: SumsOfSquares(
            of_seeds[:, :seeds].astype(float),
            delta[:, :seeds].sum(1) / float(seeds),
            squares[:, :seeds].sum(-1).astype(float),
        )
        for seeds in SEEDS
    }


def rates(cells: list[Cell], studies: int, seed: int = 0) -> dict[Cell, Rates]:
    """Of cells that share mixture and number of images: how often "same" and "not worse" are said falsely,
    and, where the recipes are equal, rightly."""
    mixture, images = cells[0].mixture, cells[0].images
    random = np.random.default_rng([seed, images, list(MIXTURES).index(mixture)])
    said: dict[Cell, dict[tuple[str, int], list[Array]]] = {cell: {} for cell in cells}
    for world in batches(mixture, images, 2, studies, random):
        for cell in cells:
            for gap, worse in (("false", cell.better - cell.margin), ("power", cell.better)):
                right = answers(world, (cell.better, worse), cell.deviations, random)
                sums = [sums_by_seeds(each) for each in (right[:, 1] - right[:, 0], right[:, 0], right[:, 1])]
                for seeds in SEEDS:
                    if seeds == 1 and cell.deviations != "none":
                        continue  # one seed is asked about its weights
                    for what, told in zip(
                        ("same", "not worse"), shown([of[seeds] for of in sums], seeds, cell.margin)
                    ):
                        said[cell].setdefault((f"{gap} {what}", seeds), []).append(told)
    return {
        cell: {key: float(np.concatenate(parts).mean()) for key, parts in of.items()}
        for cell, of in said.items()
    }


def same_and_not_worse(studies: int) -> None:
    print(
        "\nThe same within a margin, and not worse by more than it: false verdicts at a true difference of\n"
        "exactly the margin, % (mean over cells, most), and power where nothing differs, % (mean)"
    )
    print(
        f"{'images':>7} {'margin':>7} {'seeds':>6} {'false same':>12} {'false not worse':>16} {'power':>10}"
    )
    every: dict[Cell, Rates] = {}
    for images, margin in IMAGES.items():
        found: dict[Cell, Rates] = {}
        for mixture in MIXTURES:
            inside = itertools.product(ACCURACIES, DEVIATIONS)
            cells = [Cell(mixture, images, margin, *rest) for rest in inside]
            found |= rates(cells, studies // 4 if images > 2000 else studies)
        every |= found
        for seeds in SEEDS:
            line = _line(list(found.values()), seeds)
            print(f"{images:7,} {100 * margin:7.1f} {seeds:6} {line}", flush=True)
    print("\nThe cells with most false verdicts, again with fresh studies: %, then and now")
    false = [
        (share, *key, cell)
        for cell, of in every.items()
        for key, share in of.items()
        if key[0].startswith("false")
    ]
    for share, what, seeds, cell in sorted(false, key=lambda each: -each[0])[:6]:
        again = rates([cell], 4 * studies, seed=1)[cell][what, seeds]
        told = f"{cell.images:,} images, margin {cell.margin:g}, {cell.better:g}, "
        told += f"{cell.deviations}, {cell.mixture}"
        print(f"  {what}, {seeds} seeds, {told}: {100 * share:.1f}, {100 * again:.1f}", flush=True)


def _line(cells: list[Rates], seeds: int) -> str:
    def of(what: str) -> Array:
        return 100 * np.array([each[what, seeds] for each in cells if (what, seeds) in each])

    same, not_worse = (of(f"false {what}") for what in ("same", "not worse"))
    power = f"{of('power same').mean():.0f}, {of('power not worse').mean():.0f}"
    told = [f"{each.mean():.1f} ({each.max():.1f})" for each in (same, not_worse)]
    return f"{told[0]:>12} {told[1]:>16} {power:>10}"


def best_sets(studies: int) -> None:
    """All recipes equally good but for the last ones, which are clearly or somewhat worse."""
    print("\nThose that may be the best, 95 %: sets without the best, %, and the mean size of a set")
    print(
        f"{'recipes':>8} {'images':>7} {'worse by':>9} {'seeds vary':>11}"
        + "".join(f"{s:>10} seeds" for s in SEEDS)
    )
    for k, images, gap, deviations in itertools.product(
        (3, 5, 10), (360, 2000), (0.0, 0.03), ("none", "large")
    ):
        accuracies = (0.95,) * (k - k // 2) + (0.95 - gap,) * (k // 2)
        lost: dict[int, list[Array]] = {seeds: [] for seeds in SEEDS}
        size: dict[int, list[Array]] = {seeds: [] for seeds in SEEDS}
        random = np.random.default_rng([k, images])
        for world in batches("mostly shared", images, k, studies, random):
            right = answers(world, accuracies, deviations, random)
            for seeds in SEEDS:
                inside = may_be_best(right[:, :, :seeds])
                lost[seeds].append(~inside[:, 0])
                size[seeds].append(inside.sum(1))
        cells = [
            "–" if seeds == 1 and deviations != "none"
            else f"{100 * np.concatenate(lost[seeds]).mean():.1f} ({np.concatenate(size[seeds]).mean():.1f})"
            for seeds in SEEDS
        ]  # fmt: skip
        print(
            f"{k:8} {images:7,} {100 * gap:9.0f} {deviations:>11}" + "".join(f"{c:>16}" for c in cells),
            flush=True,
        )


def may_be_best(right: Array) -> NDArray[np.bool_]:
    """(studies, recipes) those that no other is shown to be better than, as `comparison.best_set`."""
    k = right.shape[1]
    inside = np.ones(right.shape[:2], bool)
    for i, j in itertools.permutations(range(k), 2):
        table = paired_random_effects(moments(right[:, j] - right[:, i]))
        inside[:, i] &= table.mean - table.margin(2 * (1 - LEVEL) / (k - 1)) <= 0
    return inside


def data_sets(studies: int) -> None:
    """Data sets of 300 to 3,000 images and several seeds, whose true differences have a deviation τ."""
    print(
        "\nOver data sets: intervals that cover, %: the average, a new data set; in brackets verdicts where\n"
        "the average is 0, %"
    )
    print(f"{'sets':>5} {'seeds':>6}" + "".join(f"{f'τ = {tau} points':>24}" for tau in (0, 1, 3)))
    for k, seeds in itertools.product((3, 5, 10), (1, 3)):
        cells = []
        for tau in (0.0, 0.01, 0.03):
            random = np.random.default_rng([k, seeds, round(1000 * tau)])
            truth = tau * random.standard_normal((studies, k + 1))
            values, variances = np.empty((2, studies, k))
            for s, images in enumerate(np.geomspace(300, 3000, k).round().astype(int)):
                for at in range(0, studies, batch := max(1, AT_ONCE // (2 * seeds * images))):
                    part = slice(at, at + batch)
                    middle = 0.9 + 0.5 * truth[part, s, None] * np.array([-1, 1])
                    size = len(middle)
                    world = worlds("mostly shared", images, 2, seeds, size, random)
                    deviation = 0.0 if seeds == 1 else 0.05
                    easy = shifted(np.clip(middle, 0.01, 0.99), deviation, seeds, random)
                    right = (world > -easy[..., None]).astype(np.float32)
                    table = paired_random_effects(moments(right[:, 1] - right[:, 0]))
                    values[part, s] = (right[:, 1] - right[:, 0]).mean((-1, -2))
                    variances[part, s] = (table.margin(1 - LEVEL) / NORMAL) ** 2
            found = pooled_effects(values, variances)
            covers = (np.abs(found.mean) <= found.margin()).mean()
            new = (np.abs(found.mean - truth[:, k]) <= found.new_margin()).mean()
            cells.append(f"{100 * covers:.1f}, {100 * new:.1f} ({100 * (found.p < 1 - LEVEL).mean():.1f})")
        print(f"{k:5} {seeds:6}" + "".join(f"{cell:>24}" for cell in cells), flush=True)


def shifted(accuracies: Array, deviation: float, seeds: int, random: np.random.Generator) -> Array:
    """As `ease`, for accuracies (studies, recipes) that differ between studies."""
    from scipy.special import ndtri

    middle = ndtri(accuracies)[..., None] * (1 + deviation**2) ** 0.5
    drawn: Array = middle + deviation * random.standard_normal((*accuracies.shape, seeds))
    return drawn.astype(np.float32)


def print_margins(studies: int) -> None:
    """All tables."""
    same_and_not_worse(studies)
    best_sets(studies)
    data_sets(studies)


if __name__ == "__main__":
    started = time.perf_counter()
    print_margins(100 if "--quick" in sys.argv[1:] else 500)
    print(f"\n{time.perf_counter() - started:.0f} s", file=sys.stderr)
