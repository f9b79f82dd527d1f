"""Which differences between recipes are real: over their seeds and their test images, from saved predictions alone."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stresslens.core.results import RunFolder, read_record
from stresslens.core.types import Estimate
from stresslens.metrics.intervals import Floats, t_mean, wilson

LEVEL = 0.95
RESAMPLES = 4000

Right = NDArray[np.float64]
"""(seeds, images): 1 where a seed's model answers an image correctly, else 0."""


@dataclass(frozen=True)
class Difference:
    """Accuracy of b minus accuracy of a; `p` is the larger of two tests (over seeds, over images), `p_holm` after Holm."""

    contrast: str
    a: str
    b: str
    difference: Estimate
    p: float
    seeds: int
    images: int
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
        low, high = sorted((d.low * 100, d.high * 100)) if d.value > 0 else sorted((-d.high * 100, -d.low * 100))
        if d.value == 0:
            return f"{self.a} and {self.b} are not distinguishable: no difference was seen ({self._over})"
        over = f"({round(low, 1) + 0.0:.1f} to {round(high, 1) + 0.0:.1f}; {self._over})"  # + 0.0: no "-0.0"
        if self.real:
            tail = "" if self.seeds > 1 else "; one seed each, so this is about these weights, not about the recipes"
            return f"{better} is better than {worse} by {points} {over}{tail}"
        corrected = f"; p after Holm's correction {self.p_holm:.2f}" if d.low > 0 or d.high < 0 else ""
        return f"{self.a} and {self.b} are not distinguishable: {better} is ahead by {points} {over}{corrected}"

    @property
    def _over(self) -> str:
        return f"{self.seeds} seeds, {self.images} images" if self.seeds > 1 else f"{self.images} images"


def accuracy_of(right: Right) -> Estimate:
    """A recipe's accuracy over its seeds and images: the widest of crossed bootstrap, t over seeds, and Wilson's over the images.

    With one seed it is Wilson's interval. `n` is the number of images.
    """
    seeds, images = right.shape
    mean = float(right.mean())
    one = wilson(round(mean * images), images, level=LEVEL)
    if seeds == 1:
        return one
    low, high = _crossed_bootstrap(right)
    t = t_mean(right.mean(1), level=LEVEL)
    low, high = min(low, t.low, mean - (one.value - one.low)), max(high, t.high, mean + (one.high - one.value))
    method = f"widest of crossed bootstrap, t over {seeds} seeds, Wilson"
    return Estimate(mean, max(0.0, low), min(1.0, high), images, method, LEVEL, "both")


def difference_of(contrast: str, a: str, b: str, right_a: Right, right_b: Right) -> Difference:
    """Two recipes on the same images and seeds, paired over both; the wider of crossed bootstrap and paired t is reported.

    `p` is the larger of the paired t test's over seeds (with more than one) and a sign-flip test's over images, which for one
    seed is McNemar's exact test. `n` is the number of images.
    """
    delta = right_b - right_a
    low, high = _crossed_bootstrap(delta)
    seeds, images = delta.shape
    p = _sign_flip_p(delta.mean(0))
    if seeds > 1:
        t = t_mean(delta.mean(1), level=LEVEL)
        low, high = min(low, t.low), max(high, t.high)
        p = max(p, _paired_t_p(delta.mean(1)))
    method = f"wider of crossed bootstrap and paired t over {seeds} seeds" if seeds > 1 else "paired bootstrap over images"
    estimate = Estimate(
        float(delta.mean()), max(-1.0, low), min(1.0, high), images, method, LEVEL, "both" if seeds > 1 else "images"
    )
    return Difference(contrast, a, b, estimate, p, seeds, images)


def with_holm(differences: list[Difference]) -> list[Difference]:
    """Holm's (1979) step-down correction over every tested pair of the study; one pair in several contrasts counts once."""
    tested = sorted({(d.p, d.a, d.b) for d in differences})
    adjusted: dict[tuple[str, str], float] = {}
    highest = 0.0
    for rank, (p, a, b) in enumerate(tested):
        highest = max(highest, min(1.0, p * (len(tested) - rank)))
        adjusted[a, b] = highest
    return [replace(d, p_holm=adjusted[d.a, d.b]) for d in differences]


def compare(folders: dict[str, list[RunFolder]], contrasts: list[tuple[str, str, str]], *, split: str = "test") -> dict[str, Any]:
    """What comparison.json holds: each recipe's accuracy and each contrast's difference, from finished runs' predictions.

    `folders` are each recipe's finished seeds. A contrast is taken over the seeds that both recipes have finished, and only
    where both were tested on the same images; otherwise the verdict says that it was not.
    """
    right = {name: {folder.path.name: _right(folder, split) for folder in seeds} for name, seeds in folders.items() if seeds}
    recipes = {name: accuracy_of(np.stack(list(seeds.values()))) for name, seeds in right.items() if _alike(seeds)}
    tested_on = {name: {_images(folder, split) for folder in seeds} for name, seeds in folders.items()}
    differences, refused = [], []
    for contrast, a, b in contrasts:
        shared = [seed for seed in right.get(a, {}) if seed in right.get(b, {})]
        if shared and len(tested_on[a] | tested_on[b]) > 1:
            refused.append(f"{a} and {b} were not compared: their {split} images differ")
        elif shared:
            stacked = [np.stack([right[name][seed] for seed in shared]) for name in (a, b)]
            differences.append(difference_of(contrast, a, b, *stacked))
    differences = with_holm(differences)
    return {
        "format": 1,
        "split": split,
        "metric": "accuracy",
        "level": LEVEL,
        "recipes": {name: estimate.as_json() for name, estimate in recipes.items()},
        "contrasts": [
            {
                "contrast": d.contrast,
                "a": d.a,
                "b": d.b,
                "difference": d.difference.as_json(),
                "p": d.p,
                "p_holm": d.p_holm,
                "real": d.real,
                "verdict": d.verdict,
            }
            for d in differences
        ],
        "verdicts": [_headline(recipes), *(d.verdict for d in differences), *refused] if recipes else [],
    }


def _alike(seeds: dict[str, Floats]) -> bool:
    return len({values.shape for values in seeds.values()}) == 1


def _images(folder: RunFolder, split: str) -> str:
    """What tells a run's images of a split from another's."""
    return str(read_record(folder)["data"].get("splits", {}).get(split))


def _headline(recipes: dict[str, Estimate]) -> str:
    best = max(recipes, key=lambda name: recipes[name].value)
    e = recipes[best]
    return f"highest mean accuracy: {best}, {e.value * 100:.1f} % ({e.low * 100:.1f} to {e.high * 100:.1f})"


def _right(folder: RunFolder, split: str) -> Floats:
    arrays = folder.load_predictions(split)
    right: Floats = (arrays["scores"].argmax(1) == arrays["labels"]).astype(np.float64)
    return right


def _crossed_bootstrap(values: Floats, *, seed: int = 0) -> tuple[float, float]:
    """Percentile interval of the mean of (seeds, images), both resampled (Owen 2007, the pigeonhole bootstrap)."""
    random = np.random.default_rng(seed)
    seeds, images = values.shape
    resamples = RESAMPLES if images <= 2000 else RESAMPLES // 4
    of_seeds = random.multinomial(seeds, np.full(seeds, 1 / seeds), size=resamples)  # (R, seeds)
    means = np.empty(resamples)
    for start in range(0, resamples, 500):  # bounds the memory: 500 × images counts
        of_images = random.multinomial(images, np.full(images, 1 / images), size=500)
        means[start : start + 500] = np.einsum("rs,rs->r", of_seeds[start : start + 500], of_images @ values.T) / (seeds * images)
    low, high = np.quantile(means, [0.5 - LEVEL / 2, 0.5 + LEVEL / 2])
    return float(low), float(high)


def _sign_flip_p(differences: Floats) -> float:
    """Two-sided p over images that a has and b has the same chance on each (Fisher's randomisation of signs).

    One mean difference an image. Exact where all that differ differ by the same (McNemar), else from 9,999 random flips.
    """
    from scipy.stats import binomtest

    sizes = np.abs(differences[differences != 0])
    if len(sizes) == 0:
        return 1.0
    if np.ptp(sizes) < 1e-12:
        return float(binomtest(int((differences > 0).sum()), len(sizes)).pvalue)
    flips = np.random.default_rng(0).integers(0, 2, (9999, len(sizes)), dtype=np.int8) * 2.0 - 1.0
    as_far = np.abs(flips @ sizes) >= abs(differences.sum()) - 1e-9
    return float((as_far.sum() + 1) / 10_000)


def _paired_t_p(differences: Floats) -> float:
    """Two-sided p of the mean over seeds being zero; no difference in any seed is p = 1."""
    from scipy.special import stdtr

    n, mean, deviation = len(differences), float(differences.mean()), float(differences.std(ddof=1))
    if deviation == 0:
        return 1.0 if mean == 0 else 0.0
    return float(2 * stdtr(n - 1, -abs(mean) / (deviation / math.sqrt(n))))
