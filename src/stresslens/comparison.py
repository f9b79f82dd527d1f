"""Which differences between recipes are real: over their seeds and their test images, from saved predictions alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stresslens.core.results import RunFolder
from stresslens.core.types import Estimate
from stresslens.metrics.intervals import Floats, t_mean

LEVEL = 0.95
RESAMPLES = 4000

Right = NDArray[np.float64]
"""(seeds, images): 1 where a seed's model answers an image correctly, else 0."""


@dataclass(frozen=True)
class Difference:
    """Accuracy of b minus accuracy of a; `p` is of the paired t test over seeds, `p_holm` after Holm over the study."""

    contrast: str
    a: str
    b: str
    difference: Estimate
    p: float | None
    p_holm: float | None = None

    @property
    def real(self) -> bool:
        """Zero lies outside the interval and, where there are seeds to test over, Holm's p is below 1 - level."""
        outside = self.difference.low > 0 or self.difference.high < 0
        return outside and (self.p_holm is None or self.p_holm < 1 - self.difference.level)

    @property
    def verdict(self) -> str:
        d = self.difference
        points = f"{abs(d.value) * 100:.1f} points"
        better, worse = (self.b, self.a) if d.value > 0 else (self.a, self.b)
        low, high = sorted((d.low * 100, d.high * 100)) if d.value > 0 else sorted((-d.high * 100, -d.low * 100))
        over = f"({round(low, 1) + 0.0:.1f} to {round(high, 1) + 0.0:.1f}; {self._over})"  # + 0.0: no "-0.0"
        if self.real:
            tail = "" if self.p is not None else "; one seed each, so this is about these weights, not about the recipes"
            return f"{better} is better than {worse} by {points} {over}{tail}"
        return f"{self.a} and {self.b} are not distinguishable: {better} is ahead by {points} {over}"

    _over: str = ""


def accuracy_of(right: Right) -> Estimate:
    """A recipe's accuracy over its seeds and images: crossed bootstrap and t over seeds, the wider reported."""
    mean = float(right.mean())
    low, high = _crossed_bootstrap(right)
    unit = "images"
    method = "bootstrap over images"
    if len(right) > 1:
        t = t_mean(right.mean(1), level=LEVEL)
        low, high = min(low, t.low), max(high, t.high)
        unit, method = "both", "wider of crossed bootstrap and t over seeds"
    return Estimate(mean, max(0.0, low), min(1.0, high), right.size, method, LEVEL, unit)  # type: ignore[arg-type]


def difference_of(contrast: str, a: str, b: str, right_a: Right, right_b: Right) -> Difference:
    """Two recipes on the same images and seeds, paired over both; the wider of crossed bootstrap and paired t is reported."""
    delta = right_b - right_a
    low, high = _crossed_bootstrap(delta)
    seeds, images = delta.shape
    p = None
    if seeds > 1:
        t = t_mean(delta.mean(1), level=LEVEL)
        low, high = min(low, t.low), max(high, t.high)
        p = _paired_t_p(delta.mean(1))
    method = "wider of crossed bootstrap and paired t over seeds" if seeds > 1 else "paired bootstrap over images"
    estimate = Estimate(float(delta.mean()), low, high, delta.size, method, LEVEL, "both" if seeds > 1 else "images")
    over = f"{seeds} seeds, {images} images" if seeds > 1 else f"{images} images"
    return Difference(contrast, a, b, estimate, p, _over=over)


def with_holm(differences: list[Difference]) -> list[Difference]:
    """Holm's (1979) step-down correction over every tested pair of the study; one pair in several contrasts counts once."""
    tested = sorted({(d.p, d.a, d.b) for d in differences if d.p is not None})
    adjusted: dict[tuple[str, str], float] = {}
    highest = 0.0
    for rank, (p, a, b) in enumerate(tested):
        highest = max(highest, min(1.0, p * (len(tested) - rank)))
        adjusted[a, b] = highest
    return [Difference(d.contrast, d.a, d.b, d.difference, d.p, adjusted.get((d.a, d.b)), _over=d._over) for d in differences]


def compare(folders: dict[str, list[RunFolder]], contrasts: list[tuple[str, str, str]], *, split: str = "test") -> dict[str, Any]:
    """What comparison.json holds: each recipe's accuracy and each contrast's difference, from finished runs' predictions.

    `folders` are each recipe's finished seeds. A contrast is taken over the seeds that both recipes have finished.
    """
    right = {name: {folder.path.name: _right(folder, split) for folder in seeds} for name, seeds in folders.items() if seeds}
    recipes = {name: accuracy_of(np.stack(list(seeds.values()))) for name, seeds in right.items()}
    differences = []
    for contrast, a, b in contrasts:
        shared = [seed for seed in right.get(a, {}) if seed in right.get(b, {})]
        same = [seed for seed in shared if right[a][seed].shape == right[b][seed].shape]
        if same:
            stacked = [np.stack([right[name][seed] for seed in same]) for name in (a, b)]
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
        "verdicts": [_headline(recipes), *(d.verdict for d in differences)] if recipes else [],
    }


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
    of_seeds = random.multinomial(seeds, np.full(seeds, 1 / seeds), size=RESAMPLES)  # (R, seeds)
    means = np.empty(RESAMPLES)
    for start in range(0, RESAMPLES, 500):  # bounds the memory: 500 × images counts
        of_images = random.multinomial(images, np.full(images, 1 / images), size=500)
        means[start : start + 500] = np.einsum("rs,rs->r", of_seeds[start : start + 500], of_images @ values.T) / (seeds * images)
    low, high = np.quantile(means, [0.5 - LEVEL / 2, 0.5 + LEVEL / 2])
    return float(low), float(high)


def _paired_t_p(differences: Floats) -> float:
    """Two-sided p of the mean over seeds being zero; no difference in any seed is p = 1."""
    from scipy.special import stdtr

    n, mean, deviation = len(differences), float(differences.mean()), float(differences.std(ddof=1))
    if deviation == 0:
        return 1.0 if mean == 0 else 0.0
    return float(2 * stdtr(n - 1, -abs(mean) / (deviation / math.sqrt(n))))
