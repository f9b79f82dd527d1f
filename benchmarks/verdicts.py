"""Do the intervals and verdicts hold? Simulated studies whose truth is known, judged by
stresslens's own statistics.

    python benchmarks/verdicts.py            # every cell, 2,000 studies each; minutes on two cores
    python benchmarks/verdicts.py --quick    # 200 studies a cell, up to 2,000 images
    python benchmarks/verdicts.py --cells    # also one line for every cell

A recipe's seed answers an image correctly when  ease + seed + image + recipe × image + noise > 0,
all normal: the image's part is shared by all recipes, the seed's by all images of one trained
model, the noise is each seed's own. Expected accuracies are then known in closed form. The three
parts of an image's variance are mixed in three ways (`MIXTURES`): mostly shared difficulty, as
measured on digits; every seed of a recipe erring on the same images; every seed on its own.

Printed: the share of false verdicts where there is no true difference (target: at most 5 %), the
share of intervals that cover the truth (target: 95 ± 1.5 %), and power. What cannot meet the
target, and why:
- One seed says nothing about recipes. Its interval and test are about these weights, and are judged
  against their own truth.
- Two or three seeds hardly show how much seeds vary. What is safe where they vary much (t with one
  or two degrees of freedom) is too wide where they do not, so that coverage lies above 96.5 %
  there, most with two seeds and few images.
- Where fewer than some ten images differ, counts are so coarse that no interval covers 95 %; these
  err to the wide side. Wilson's interval of one model's accuracy near 1 on 100 images is the
  exception: it may cover 92 % (Brown, Cai & DasGupta 2001).
- Accuracies of seeds that vary much below a ceiling of 100 % are skewed, and two or three of them
  do not show it. A kind of seed that did not occur is in no interval.

At its end, the intervals of every other score (`intervals.py`): cross-entropy, balanced accuracy,
AUROC, the power law, …; and verdicts of sameness, of the best, and over data sets
(`equivalence.py`).
"""

from __future__ import annotations

import itertools
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from folds import ALPHA, LEVEL, folds
from intervals import print_intervals
from numpy.typing import NDArray
from scipy.special import bdtr, ndtr, ndtri, stdtrit

from stresslens.metrics.paired import holm
from stresslens.metrics.random_effects import (
    Crossed,
    SumsOfSquares,
    crossed,
    moments,
    paired_random_effects,
    plan,
    proportion_bounds,
)

Array = NDArray[np.floating[Any]]

SEEDS = (1, 2, 3, 5, 10)
IMAGES = (100, 360, 2000, 10_000)
ACCURACIES = ((0.7, 0.75), (0.95, 0.97), (0.99, 0.995))
"""Of a, and of b where the two differ."""
SEED_DEVIATIONS = {"none": 0.0, "small": 0.05, "large": 0.3}
"""Of a seed's part, where the rest has deviation 1; large is 3 points of an accuracy of 95 %, and
10 of one of 70 %."""
MIXTURES = {"mostly shared": (0.7, 0.1, 0.2), "seeds alike": (0.7, 0.3, 0.0), "seeds apart": (0.7, 0.0, 0.3)}
"""Shares of an image's variance: common to all recipes, the recipe's own, each seed's own."""
AT_ONCE = 2 * 10**7
METHODS = ("stresslens", "wider of bootstrap and t", "t over seeds", "images alone")


@dataclass(frozen=True)
class Cell:
    mixture: str
    images: int
    deviation: str
    accuracies: tuple[float, float]
    seeds: int

    @property
    def difference(self) -> float:
        return self.accuracies[1] - self.accuracies[0]


def worlds(
    mixture: str, images: int, recipes: int, seeds: int, studies: int, random: np.random.Generator
) -> Array:
    """What of an answer is no recipe's merit and no seed's: (studies, recipes, seeds, images), of
    variance 1."""
    shared, own, noise = (np.float32(share**0.5) for share in MIXTURES[mixture])
    world = noise * random.standard_normal((studies, recipes, seeds, images), np.float32)
    world += own * random.standard_normal((studies, recipes, 1, images), np.float32)
    world += shared * random.standard_normal((studies, 1, 1, images), np.float32)
    return world


def ease(
    accuracies: tuple[float, ...], deviation: float, seeds: int, studies: int, random: np.random.Generator
) -> Array:
    """(studies, recipes, seeds): how easy a seed finds images; its mean over seeds gives the
    recipe's expected accuracy."""
    middle = ndtri(accuracies)[:, None] * (1 + deviation**2) ** 0.5
    return (middle + deviation * random.standard_normal((studies, len(accuracies), seeds))).astype(np.float32)


def cells_of(mixture: str, images: int, studies: int) -> list[tuple[Cell, dict[str, Any]]]:
    """Every cell of a mixture and number of images, all from the same simulated images: figures by cell."""
    conditions = [(d, (a, c)) for d in SEED_DEVIATIONS for a, b in ACCURACIES for c in (a, b)]
    return simulated(
        [Cell(mixture, images, d, accuracies, seeds) for d, accuracies in conditions for seeds in SEEDS],
        studies,
        0,
    )


def simulated(cells: list[Cell], studies: int, seed: int) -> list[tuple[Cell, dict[str, Any]]]:
    """Figures of cells that share mixture and number of images."""
    mixture, images = cells[0].mixture, cells[0].images
    random = np.random.default_rng([seed, list(MIXTURES).index(mixture), images])
    judged: dict[Cell, list[dict[str, Array]]] = {cell: [] for cell in cells}
    most, left = max(cell.seeds for cell in cells), studies
    while left:
        batch = min(left, max(1, AT_ONCE // (2 * most * images)))
        left -= batch
        world = worlds(mixture, images, 2, most, batch, random)
        for (deviation, accuracies), alike in itertools.groupby(
            cells, lambda cell: (cell.deviation, cell.accuracies)
        ):
            seedwise = ease(accuracies, SEED_DEVIATIONS[deviation], most, batch, random)
            right = world > -seedwise[..., None]
            delta = right[:, 1].astype(np.float32)
            alone = delta.copy() if accuracies[0] == accuracies[1] else None
            delta -= right[:, 0]
            for cell in alike:
                judged[cell].append(float32_logits(delta[:, : cell.seeds], alone, seedwise, cell))
    return [
        (cell, {key: np.concatenate([part[key] for part in parts]).mean() for key in parts[0]})
        for cell, parts in judged.items()
    ]


def worst_again(results: list[tuple[Cell, dict[str, Any]]], studies: int) -> None:
    """The cells with most false verdicts, of which some are worst by chance, with fresh studies."""
    null = [
        (found["stresslens: real"], cell) for cell, found in results if cell.seeds > 1 and not cell.difference
    ]
    worst = sorted(null, key=lambda each: -each[0])[:4]
    print(
        f"\nThe cells with most false verdicts, again with {studies:,} fresh studies: false verdicts, %, "
        "then and now"
    )
    for before, cell in worst:
        again = simulated([cell], studies, 1)[0][1]["stresslens: real"]
        told = (
            f"{cell.seeds} seeds varying {cell.deviation}, {cell.images:,} images, "
            f"{cell.accuracies[0]:.0%}, {cell.mixture}"
        )
        print(f"  {told}: {100 * before:.1f}, {100 * again:.1f}")


def float32_logits(delta: Array, alone: Array | None, seedwise: Array, cell: Cell) -> dict[str, Array]:
    """For a batch of studies: which intervals cover the truth, which verdicts are "real", by method."""
    of = moments(delta)
    truth = (
        ndtr(seedwise[:, 1, 0]) - ndtr(seedwise[:, 0, 0]) if cell.seeds == 1 else np.float64(cell.difference)
    )
    found: dict[str, Array] = {}
    for method, (low, high, real) in verdicts(of, cell.seeds).items():
        found[f"{method}: covers"] = (low <= truth + 1e-9) & (truth <= high + 1e-9)
        found[f"{method}: real"] = real
        found[f"{method}: width"] = high - low
    if alone is not None:
        low, high = proportion_bounds(moments(alone[:, : cell.seeds]), level=LEVEL)
        accuracy = ndtr(seedwise[:, 1, 0]) if cell.seeds == 1 else np.float64(cell.accuracies[1])
        found["accuracy: covers"] = (low <= accuracy) & (accuracy <= high)
    return found


def verdicts(of: SumsOfSquares, seeds: int) -> dict[str, tuple[Array, Array, Array]]:
    """Low, high and "real" of each method for one contrast."""
    table, plain = paired_random_effects(of), crossed(of)
    low, high = table.mean - table.margin(ALPHA), table.mean + table.margin(ALPHA)
    n = plain.images
    if seeds == 1:
        differ, more = of.square, np.round(plain.mean * n)
        p = np.minimum(1, 2 * bdtr((differ - np.abs(more)) / 2, differ.astype(int), 0.5))
        low, high = (
            np.where(p >= ALPHA, np.minimum(low, 0), low),
            np.where(p >= ALPHA, np.maximum(high, 0), high),
        )
        z = -ndtri(ALPHA / 2) * np.sqrt(plain.ms_images / n)
        return {"stresslens": (low, high, p < ALPHA), "images alone": around(plain.mean, z)}
    over_seeds = -stdtrit(seeds - 1, ALPHA / 2) * np.sqrt(plain.ms_seeds / (seeds * n))
    pigeonhole = (  # the variance that a crossed bootstrap estimates (Owen 2007)
        plain.ms_seeds * (seeds - 1) / seeds
        + plain.ms_images * (n - 1) / n
        + plain.ms_rest * (seeds - 1) * (n - 1) / (seeds * n)
    ) / (seeds * n)
    return {
        "stresslens": (low, high, table.p < ALPHA),
        "wider of bootstrap and t": around(
            plain.mean, np.maximum(over_seeds, -ndtri(ALPHA / 2) * np.sqrt(pigeonhole))
        ),
        "t over seeds": around(plain.mean, over_seeds),
        "images alone": around(plain.mean, -ndtri(ALPHA / 2) * np.sqrt(plain.ms_images / (seeds * n))),
    }


def around(mean: Array, margin: Array) -> tuple[Array, Array, Array]:
    return mean - margin, mean + margin, np.abs(mean) > margin


def print_cells(results: list[tuple[Cell, dict[str, Any]]], studies: int, every: bool) -> None:
    error = 100 * (LEVEL * ALPHA / studies) ** 0.5
    print(
        f"\n{len(results):,} cells of {studies:,} studies; a share of 5 % is known to ± {error:.1f} points "
        "(one standard error)"
    )
    print(
        "false: verdicts where nothing differs, %. cover: intervals that cover, %; in: cells "
        "within 95 ± 1.5, then below, above"
    )
    print("power: verdicts where b is better. width: of the interval, points (geometric mean)\n")
    print(
        "seeds method                     false: mean   max  cover: mean   min     in  below  above  "
        "power  width"
    )
    for seeds in SEEDS:
        for method in METHODS:
            of = [
                (cell, found) for cell, found in results if cell.seeds == seeds and f"{method}: real" in found
            ]
            if not of:
                continue
            # One seed is asked about its weights; only where seeds do not vary are equal recipes
            # equal weights.
            null = [
                f[f"{method}: real"]
                for c, f in of
                if not c.difference and (seeds > 1 or c.deviation == "none")
            ]
            cover = np.array([f[f"{method}: covers"] for _, f in of])
            power = np.mean([f[f"{method}: real"] for c, f in of if c.difference])
            width = np.exp(np.mean([np.log(f[f"{method}: width"] + 1e-12) for _, f in of]))
            below, above = (cover < 0.935).mean(), (cover > 0.965).mean()
            print(
                f"{seeds:5} {method:26} {100 * np.mean(null):11.1f} {100 * max(null):5.1f} "
                f"{100 * cover.mean():12.1f} {100 * cover.min():5.1f} "
                f"{1 - below - above:6.0%} {below:6.0%} {above:6.0%} {power:6.0%} {100 * width:6.2f}"
            )
    one = [
        f["stresslens: real"]
        for c, f in results
        if c.seeds == 1 and not c.difference and c.deviation == "large"
    ]
    print(
        f"\nOne seed, were it asked about recipes whose seeds vary much: {100 * np.mean(one):.0f} % false "
        "verdicts"
    )
    print("\nA recipe's own accuracy: seeds, mean, least, and cells within 95 ± 1.5, below, above")
    for seeds in SEEDS:
        cover = np.array(
            [f["accuracy: covers"] for c, f in results if c.seeds == seeds and "accuracy: covers" in f]
        )
        below, above = (cover < 0.935).mean(), (cover > 0.965).mean()
        print(
            f"{seeds:5} {100 * cover.mean():6.1f} {100 * cover.min():6.1f} {1 - below - above:6.0%} "
            f"{below:6.0%} {above:6.0%}"
        )
    print("\nstresslens by images and seed variation: coverage, mean over cells (false verdicts, mean), %")
    print(f"{'images':>7} {'seeds vary':>10} " + "".join(f"{f'{seeds} seeds':>15}" for seeds in SEEDS))
    for images, deviation in itertools.product(sorted({c.images for c, _ in results}), SEED_DEVIATIONS):
        line = f"{images:7,} {deviation:>10} "
        for seeds in SEEDS:
            of = [
                (c, f) for c, f in results if (c.images, c.deviation, c.seeds) == (images, deviation, seeds)
            ]
            cover, false = (
                np.mean([f["stresslens: covers"] for _, f in of]),
                np.mean([f["stresslens: real"] for c, f in of if not c.difference]),
            )
            told = "–" if seeds == 1 and deviation != "none" else f"{100 * false:.1f}"
            line += f"{f'{100 * cover:.1f} ({told})':>15}"
        print(line)
    for cell, found in results if every else ():
        print(
            cell,
            {
                key: round(float(value), 4)
                for key, value in found.items()
                if key.startswith(("stresslens", "accuracy"))
            },
        )


def families(studies: int) -> None:
    """Studies of four equal recipes, each against the first: the share with any false verdict after Holm."""
    print(
        "\nFour equal recipes of 95 %, three contrasts, 360 images: studies with a false verdict after "
        "Holm, % (before)"
    )
    random = np.random.default_rng(1)
    for seeds, deviation in itertools.product(SEEDS, SEED_DEVIATIONS):
        if seeds == 1 and deviation != "none":
            continue
        p = []
        for _ in range(studies // 200):
            world = worlds("mostly shared", 360, 4, seeds, 200, random)
            right = (
                world > -ease((0.95,) * 4, SEED_DEVIATIONS[deviation], seeds, 200, random)[..., None]
            ).astype(np.float32)
            p.append(paired_random_effects(moments(right[:, 1:] - right[:, :1])).p)
        tested = np.concatenate(p)
        after = np.mean([min(holm(dict(enumerate(row))).values()) < ALPHA for row in tested])
        print(
            f"{seeds:5} seeds, varying {deviation:6} {100 * after:5.1f}  "
            f"({100 * (tested < ALPHA).any(1).mean():.1f})"
        )


def as_if(table: Crossed, seeds: int, images: int) -> Crossed:
    """The same variances, as a smaller table would show them on average."""
    return Crossed(
        table.mean,
        seeds,
        images,
        table.ms_rest + images * table.var_seed,
        table.ms_rest + seeds * table.var_image,
        table.ms_rest,
    )


def plans(studies: int) -> None:
    """The power that a plan made from well-known variances has; 80 % is promised."""
    print(
        "\nPlans for the true difference, of variances known from 200 seeds × 10,000 images: power at the "
        "planned size, %"
    )
    random = np.random.default_rng(4)
    for (a, b), deviation in itertools.product(((0.7, 0.75), (0.95, 0.97)), SEED_DEVIATIONS):
        for present in (2, 3, 5):

            def answers(
                seeds: int,
                images: int,
                batch: int,
                pair: tuple[float, float] = (a, b),
                deviation: str = deviation,
            ) -> Array:
                world = worlds("mostly shared", images, 2, seeds, batch, random)
                right = (
                    world > -ease(pair, SEED_DEVIATIONS[deviation], seeds, batch, random)[..., None]
                ).astype(np.float32)
                delta: Array = right[:, 1] - right[:, 0]
                return delta

            known = as_if(paired_random_effects(moments(answers(200, 10_000, 1)[0])), present, 100)
            seeds, images = plan(known, b - a, level=LEVEL)
            size = round(images or 100)
            if not np.isfinite(size) or seeds * size > 10**6:
                print(
                    f"{a:.2f} to {b:.2f}, seeds vary {deviation:6}: {seeds} seeds × {size:,} images, not "
                    "simulated"
                )
                continue
            batch = max(1, AT_ONCE // (2 * seeds * size))
            p = [
                paired_random_effects(moments(answers(seeds, size, batch))).p
                for _ in range(max(1, studies // batch))
            ]
            power = (np.concatenate(p) < ALPHA).mean()
            print(
                f"{a:.2f} to {b:.2f}, seeds vary {deviation:6}: {seeds:3} seeds × {size:6,} images: "
                f"{100 * power:.0f}"
            )


def main(words: list[str]) -> None:
    quick = "--quick" in words
    studies, images = (200, IMAGES[:3]) if quick else (2000, IMAGES)
    started = time.perf_counter()
    tasks = list(itertools.product(MIXTURES, sorted(images, reverse=True), (studies,)))
    with ProcessPoolExecutor(2) as pool:
        results = [each for part in pool.map(cells_of, *zip(*tasks, strict=True)) for each in part]
    print_cells(results, studies, "--cells" in words)
    worst_again(results, 5 * studies)
    families(studies)
    folds(studies // 2)
    plans(studies)
    print_intervals(studies // 2)
    from equivalence import print_margins  # which imports this file

    print_margins(studies // 4)
    print(f"\n{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main(sys.argv[1:])
