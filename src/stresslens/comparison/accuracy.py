"""Which differences between recipes are real: over their seeds and their test images, from saved
predictions alone."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stresslens.comparison import claims, costs, errors_by_class
from stresslens.core.files import read_json
from stresslens.core.run_folder import RunFolder
from stresslens.core.types import Estimate
from stresslens.evaluation.record import DivisionRecord, RunRecord, read_record
from stresslens.metrics import random_effects
from stresslens.metrics.intervals import Floats
from stresslens.metrics.paired import holm, mcnemar, resampled, resampled_reach

LEVEL = 0.95
LARGEST_MATRIX = 24

Right = NDArray[np.floating]
"""(seeds, images): 1 where a seed's model answers an image correctly, else 0."""

Recipes = Mapping[str, Mapping[str, RunFolder]]
"""Each recipe's finished runs; those of two recipes that are named alike (`seed-0`) are a pair."""

Contrasts = Sequence[tuple[str, str, str]]
"""What is compared: the contrast's name, a and b."""


@dataclass(frozen=True)
class Difference:
    """Accuracy of b minus accuracy of a, with p before and after Holm, and what it would take to
    tell a difference.

    `divisions` says that each seed is another division of the same images, with `images` test
    images each; `under` what the images went through before they were answered, and `threat` sets
    apart what `under` describes alike.
    """

    contrast: str
    a: str
    b: str
    difference: Estimate
    p: float
    seeds: int
    images: int
    plan: str = ""
    divisions: bool = False
    under: str = ""
    threat: str = ""
    p_holm: float = 1.0

    @property
    def real(self) -> bool:
        """Zero lies outside the interval, and Holm's p is below 1 - level."""
        outside = self.difference.low > 0 or self.difference.high < 0
        return outside and self.p_holm < 1 - self.difference.level

    @property
    def verdict(self) -> str:
        d = self.difference
        points = f"{abs(d.value) * 100:.1f} points"
        better, worse = (self.b, self.a) if d.value > 0 else (self.a, self.b)
        low, high = (
            sorted((d.low * 100, d.high * 100)) if d.value > 0 else sorted((-d.high * 100, -d.low * 100))
        )
        under = f" under {self.under}" if self.under else ""
        if d.value == 0:
            return (
                f"{self.a} and {self.b} are not distinguishable{under}: no difference was seen ({self._over})"
            )
        over = f"({round(low, 1) + 0.0:.1f} to {round(high, 1) + 0.0:.1f}; {self._over})"  # + 0.0: no "-0.0"
        if self.real:
            tail = (
                ""
                if self.seeds > 1
                else "; one seed each, so this is about these weights, not about the recipes"
            )
            return f"{better} is {'more robust' if self.under else 'better'} than {worse}{under} by {points} {over}{tail}"
        corrected = f"; p after Holm's correction {self.p_holm:.2f}" if d.low > 0 or d.high < 0 else ""
        return f"{self.a} and {self.b} are not distinguishable{under}: {better} is ahead by {points} {over}{corrected}"

    @property
    def _over(self) -> str:
        if self.divisions:
            return f"{self.seeds} divisions, {self.images} test images each"
        return f"{self.seeds} seeds, {self.images} images" if self.seeds > 1 else f"{self.images} images"

    def as_json(self) -> dict[str, Any]:
        return {
            "contrast": self.contrast,
            "a": self.a,
            "b": self.b,
            "difference": self.difference.as_json(),
            "p": self.p,
            "p_holm": self.p_holm,
            "real": self.real,
            "verdict": self.verdict,
            "plan": self.plan,
        }


@dataclass(frozen=True)
class Tested:
    """What one run answered on a split: right and labels (images,), with the record it comes from."""

    right: NDArray[np.bool_]
    labels: NDArray[np.int64]
    split: str
    record: RunRecord

    @property
    def under(self) -> str:
        """What the images went through before they were answered."""
        return ""

    @property
    def threat(self) -> str:
        """All of what the images went through: equal where `under` is the same and nothing that it
        leaves out differs."""
        return ""

    @property
    def division(self) -> DivisionRecord | None:
        """How the images were divided into training and test for this seed alone; None where all
        seeds have the same test."""
        return self.record.data.division if self.split == "test" else None

    def unlike(self, other: Tested) -> str | None:
        """How what this run was tested on differs from another's, in words; None where it is the same."""
        why = self._other_images(other)
        return f"their {self.split} images differ ({why})" if why else None

    def _other_images(self, other: Tested) -> str | None:
        mine, theirs = (each.record.data.name for each in (self, other))
        both = mine if mine == theirs else f"{mine} and {theirs}"
        if len(self.labels) != len(other.labels):
            return f"{len(self.labels)} {self.split} images of {mine} against {len(other.labels)} of {theirs}"
        if len(changed := np.flatnonzero(self.labels != other.labels)):
            return f"{len(changed)} of {len(self.labels)} images of {both} differ in label, the first at {changed[0]}"
        first, second = (each.record.data.splits.get(self.split) for each in (self, other))
        if first and second and first != second:
            return f"as many images and the same labels, but other pixels: {both}, fingerprints {first} and {second}"
        return None


def tested_of(folder: RunFolder, split: str) -> Tested:
    """A run's answers from its saved predictions. Raises UnreadableRun."""
    arrays = folder.load_predictions(split)
    return Tested(
        arrays["scores"].argmax(1) == arrays["labels"], arrays["labels"], split, read_record(folder)
    )


def accuracy_of(right: Right) -> Estimate:
    """A recipe's accuracy over its seeds and images (Wilson's interval with one seed); `n` is the
    number of images."""
    return random_effects.proportion(right, level=LEVEL)


def difference_of(
    contrast: str, a: str, b: str, right_a: Right, right_b: Right, *, ask: float | None = None
) -> Difference:
    """Two recipes on the same images and seeds, paired over both; with one seed, two sets of weights.

    Over several seeds interval and p are `crossed.paired`'s, and agree. Over one, p is McNemar's
    exact test and the interval Bonett & Price's, widened to zero where the test does not reject.
    `ask` is the difference the plan is for; None is `asked` of the one seen. `n` is the number of
    images.
    """
    delta = np.subtract(right_b, right_a, dtype=np.float32)
    seeds, images = delta.shape
    table, value = (
        random_effects.paired_random_effects(random_effects.moments(delta)),
        float(delta.mean(dtype=np.float64)),
    )
    margin = float(table.margin(1 - LEVEL))
    low, high = max(-1.0, float(table.mean) - margin), min(1.0, float(table.mean) + margin)
    if seeds > 1:
        p, method = float(table.p), f"t over {seeds} seeds and normal over images, margins added as variances"
    else:
        p, method = mcnemar(int((delta < 0).sum()), int((delta > 0).sum())), "Bonett & Price, paired"
        low, high = (min(low, 0.0), max(high, 0.0)) if p >= 1 - LEVEL else (low, high)
    estimate = Estimate(
        value, min(low, value), max(high, value), images, method, LEVEL, "both" if seeds > 1 else "images"
    )
    return Difference(contrast, a, b, estimate, p, seeds, images, _plan(table, images, ask or asked(value)))


def divided_difference_of(
    contrast: str,
    a: str,
    b: str,
    difference: Floats,
    divisions: Sequence[DivisionRecord],
    *,
    ask: float | None = None,
) -> Difference:
    """Two recipes over J divisions of the same images: their accuracies' differences (J,), by the
    corrected resampled t test."""
    estimate, p = _over_divisions(difference, divisions)
    estimate = replace(estimate, low=max(-1.0, estimate.low), high=min(1.0, estimate.high))
    train, test = _sizes(divisions)
    ask = ask or asked(estimate.value)
    needed = (train + test) * (
        resampled_reach(difference, test / train, grain=1 / test, level=LEVEL) / ask
    ) ** 2
    enough = f"these {len(difference)} divisions of {round(train + test):,} images {_enough(ask)}"
    more = f"telling {_points(ask)} apart would take about {_rounded_up(needed)} images in all, divided in the same way"
    plan = enough if needed <= train + test else more
    return Difference(contrast, a, b, estimate, p, len(difference), estimate.n, plan, divisions=True)


def asked(seen: float) -> float:
    """What a plan is for when nothing is asked: the difference seen, to half a point (from 5 on to
    a whole one), at least half."""
    step = 0.005 if abs(seen) < 0.05 else 0.01
    return max(0.005, round(abs(seen) / step) * step)


def with_holm(differences: list[Difference]) -> list[Difference]:
    """Holm's (1979) step-down correction over every tested pair of the study; one pair in several
    contrasts counts once."""
    corrected = holm({(d.a, d.b, d.under, d.threat): d.p for d in differences})
    return [replace(d, p_holm=corrected[d.a, d.b, d.under, d.threat]) for d in differences]


def compare_accuracy(
    recipes: Recipes,
    contrasts: Contrasts,
    *,
    split: str = "test",
    ask: float | None = None,
    metric: str = "accuracy",
    read: Callable[[RunFolder, str], Tested] = tested_of,
) -> dict[str, Any]:
    """What comparison.json holds: each recipe's accuracy, each contrast's difference, errors by
    class and costs, and all pairs of up to 24 recipes.

    A contrast is taken over the seeds that both recipes have finished, and only where each was
    tested on the same images; otherwise the verdict says that it was not. `ask` is the difference
    the plans are for; `read` gives a run's answers on a split.
    """
    tested = {
        name: {seed: read(folder, split) for seed, folder in folders.items()}
        for name, folders in recipes.items()
        if folders
    }
    accuracies = {
        name: accuracy for name, seeds in tested.items() if (accuracy := _accuracy(list(seeds.values())))
    }
    differences, errors, refused, left_out = [], [], [], []
    for contrast, a, b in contrasts:
        if a in tested and b in tested:
            found = paired_accuracy(contrast, a, b, tested, ask)
            if isinstance(found, Difference):
                seeds = [
                    (one.right, tested[b][seed].right, one.labels)
                    for seed, one in tested[a].items()
                    if seed in tested[b]
                ]
                errors.append(
                    {
                        "contrast": contrast,
                        "a": a,
                        "b": b,
                        "seeds": len(seeds),
                        **errors_by_class.of_classes(seeds),
                    }
                )
            differences.append(found) if isinstance(found, Difference) else refused.append(found)
            alone = sorted(
                {
                    f"{name}/{seed}"
                    for name, other in ((a, b), (b, a))
                    for seed in tested[name].keys() - tested[other].keys()
                }
            )
            if alone and isinstance(found, Difference):
                left_out.append(f"left out of {a} against {b}, for want of a partner: {', '.join(alone)}")
        else:
            missing = " and ".join(name for name in (a, b) if name not in tested)
            refused.append(f"{a} and {b} were not compared: {missing} has no finished run")
    differences = with_holm(differences)
    records = {name: {seed: each.record for seed, each in seeds.items()} for name, seeds in tested.items()}
    compared = {
        "format": 1,
        "split": split,
        "metric": metric,
        "level": LEVEL,
        "recipes": {name: estimate.as_json() for name, estimate in accuracies.items()},
        "contrasts": [difference.as_json() for difference in differences],
        "errors": errors,
        "costs": [ratio.as_json() for ratio in costs.compare_costs(records, contrasts, level=LEVEL)],
        "refused": refused,
        "verdicts": [*_headline(accuracies, tested), *(d.verdict for d in differences), *refused, *left_out]
        if accuracies
        else [],
    }
    if 3 <= len(accuracies) <= LARGEST_MATRIX:
        compared["matrix"] = _matrix(list(accuracies), tested)
    return compared


def recipes_of(folder: Path, there: Callable[[RunFolder], bool]) -> Recipes:
    """The runs and seeds of a study's study.json, those for which there is something to compare."""
    described = read_json(folder / "study.json")
    folders = {
        run: [RunFolder(folder / run / f"seed-{seed}") for seed in described["seeds"]]
        for run in described["runs"]
    }
    return {run: {each.path.name: each for each in seeds if there(each)} for run, seeds in folders.items()}


def compare_study_accuracy(folder: Path, *, split: str = "test", ask: float | None = None) -> dict[str, Any]:
    """`compare` of a study's folder: the runs, seeds and contrasts of its study.json, as far as
    they are finished."""
    described = read_json(folder / "study.json")
    recipes = recipes_of(folder, lambda each: each.predictions(split).exists())
    compared = compare_accuracy(
        recipes, [(name, a, b) for name, a, b in described["contrasts"]], split=split, ask=ask
    )
    return compared | {
        "claims": claims.judged_claims(described.get("claims", []), compared["contrasts"], folder.parent)
    }


def _accuracy(seeds: list[Tested]) -> Estimate | None:
    """None where the seeds were tested on different images, and not by design."""
    if not any(seeds[0].unlike(other) for other in seeds[1:]):
        return accuracy_of(np.stack([each.right for each in seeds]).astype(np.float32))
    divisions = [each.division for each in seeds if each.division]
    if len(divisions) < len(seeds):
        return None
    estimate, _ = _over_divisions(np.array([each.right.mean() for each in seeds]), divisions)
    return replace(estimate, low=max(0.0, estimate.low), high=min(1.0, estimate.high))


def _over_divisions(values: Floats, divisions: Sequence[DivisionRecord]) -> tuple[Estimate, float]:
    """The mean of one value a division with its interval and p; `n` is the number of test images of
    a division."""
    train, test = _sizes(divisions)
    margin, p = resampled(values, test / train, grain=1 / test, level=LEVEL)
    value, method = float(values.mean()), f"corrected resampled t over {len(values)} divisions"
    return Estimate(value, value - margin, value + margin, round(test), method, LEVEL, "both"), p


def _sizes(divisions: Sequence[DivisionRecord]) -> tuple[float, float]:
    """Training and test images of a division, on average."""
    n = len(divisions)
    return sum(each.train for each in divisions) / n, sum(each.test for each in divisions) / n


def paired_accuracy(
    contrast: str, a: str, b: str, tested: Mapping[str, Mapping[str, Tested]], ask: float | None
) -> Difference | str:
    """The difference over the seeds both have, or why there is none."""
    pairs = [(tested[a][seed], tested[b][seed]) for seed in tested[a] if seed in tested[b]]
    if not pairs:
        return f"{a} and {b} were not compared: they have no finished seed in common"
    split = pairs[0][0].split
    for one, other in pairs:
        if why := one.unlike(other):
            return f"{a} and {b} were not compared: {why}"
    if not any(pairs[0][0].unlike(one) for one, _ in pairs[1:]):
        right = [np.stack([pair[side].right for pair in pairs]).astype(np.float32) for side in (0, 1)]
        return replace(
            difference_of(contrast, a, b, *right, ask=ask), under=pairs[0][0].under, threat=pairs[0][0].threat
        )
    divisions = [one.division for one, _ in pairs if one.division]
    if len(divisions) < len(pairs):
        return f"{a} and {b} were not compared: their seeds were tested on different {split} images"
    accuracies = np.array([[each.right.mean() for each in pair] for pair in pairs])
    found = divided_difference_of(contrast, a, b, accuracies[:, 1] - accuracies[:, 0], divisions, ask=ask)
    return replace(found, under=pairs[0][0].under, threat=pairs[0][0].threat)


def _matrix(names: list[str], tested: Mapping[str, Mapping[str, Tested]]) -> dict[str, Any]:
    """Every pair, the row minus the column, Holm over the pairs; null where a pair cannot be compared."""
    pairs = [paired_accuracy("", b, a, tested, None) for a, b in itertools.combinations(names, 2)]
    differences = with_holm([pair for pair in pairs if isinstance(pair, Difference)])
    place = {name: k for k, name in enumerate(names)}
    empty: list[list[Any]] = [[None] * len(names) for _ in names]
    cells = {key: [list(row) for row in empty] for key in ("difference", "low", "high", "p_holm", "real")}
    for d in differences:
        row, column, e = place[d.b], place[d.a], d.difference
        for key, above, below in (
            ("difference", e.value, -e.value),
            ("low", e.low, -e.high),
            ("high", e.high, -e.low),
            ("p_holm", d.p_holm, d.p_holm),
            ("real", d.real, d.real),
        ):
            cells[key][row][column], cells[key][column][row] = above, below
    return {"recipes": names, **cells}


def _headline(recipes: Mapping[str, Estimate], tested: Mapping[str, Mapping[str, Tested]]) -> list[str]:
    """Which recipe scored highest, if they can be ranked at all."""
    best = max(recipes, key=lambda name: recipes[name].value)
    e = recipes[best]
    scored = f"{best}, {e.value * 100:.1f} % ({e.low * 100:.1f} to {e.high * 100:.1f})"
    under = next(iter(tested[best].values())).under
    measured = f"robust accuracy under {under}" if under else "accuracy"
    if len(recipes) == 1:
        return [f"{measured}: {scored}"]
    first, *others = (next(iter(tested[name].values())) for name in recipes)
    if any(first.unlike(other) and first.division is None for other in others):
        return ["the runs were tested on different images, so that no ranking is to be had"]
    return [f"highest mean {measured}: {scored}"]


def _plan(table: random_effects.Crossed, images: int, ask: float) -> str:
    seeds, needed = random_effects.plan(table, ask, level=LEVEL)
    asked_for = _points(ask)
    present = f"{table.seeds} seeds and {images:,} images" if table.seeds > 1 else f"{images:,} images"
    if needed is None:
        if seeds == table.seeds:
            return f"these {present} {_enough(ask)}"
        return f"telling {asked_for} apart would take about {seeds} seeds on these {images:,} images"
    if math.isinf(needed):
        return f"telling {asked_for} apart would take more than {random_effects.MOST_SEEDS:,} seeds or {random_effects.MOST_IMAGES:,} images"
    if seeds == 1:
        return f"telling {asked_for} apart would take about {_rounded_up(needed)} images, for these weights alone"
    return f"telling {asked_for} apart would take about {_rounded_up(needed)} images and {seeds} seeds"


def _enough(ask: float) -> str:
    return f"are enough to tell {_points(ask)} apart in a single comparison"


def _points(difference: float) -> str:
    points = f"{difference * 100:.3g}"
    return f"{points} point{'' if points == '1' else 's'}"


def _rounded_up(count: float) -> str:
    """To two digits."""
    step = 10 ** max(0, math.floor(math.log10(count)) - 1)
    return f"{math.ceil(count / step) * step:,}"
