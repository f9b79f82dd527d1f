"""Cost ratios of variants: time, memory and parameters, from the records of finished runs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from stresslens.comparison.schema import CostRatio
from stresslens.core.text import duration
from stresslens.core.types import Estimate
from stresslens.evaluation.record import RunRecord
from stresslens.metrics.intervals import Floats
from stresslens.metrics.paired import holm, resampled
from stresslens.metrics.random_effects import FEWEST_SEEDS

PHRASES = {
    "seconds per epoch": "as long per epoch as",
    "seconds to the stop": "as long to the stop as",
    "seconds to score": "as long to score the test images as",
    "peak memory": "as much memory as",
    "parameters": "as many parameters as",
    "multiply-adds": "as many multiply-adds for an image as",
}
"""The measures that are compared, each with the words of its ratio."""

SHORTEST = 0.1
"""Seconds. A shorter scoring time is not compared, because other load on the machine decides it."""

EXACT = ("parameters", "multiply-adds")
"""Measures that are the same for every seed."""


@dataclass(frozen=True)
class Ratio:
    """A cost of b divided by that of a. The interval is over the seeds; it is NaN with one seed and
    for an exact figure. `cost_a` and `cost_b` are the means of the costs themselves."""

    contrast: str
    a: str
    b: str
    measure: str
    ratio: Estimate
    p: float = math.nan
    p_holm: float = math.nan
    cost_a: float = math.nan
    cost_b: float = math.nan

    @property
    def real(self) -> bool:
        """Whether the interval excludes 1 and Holm's p is below 1 - level; for an exact figure,
        whether the ratio is not 1."""
        if self.measure in EXACT:
            return self.ratio.value != 1
        return (self.ratio.low > 1 or self.ratio.high < 1) and self.p_holm < 1 - self.ratio.level

    @property
    def verdict(self) -> str:
        r = self.ratio
        more, less = (self.b, self.a) if r.value >= 1 else (self.a, self.b)
        times, *ends = (v if r.value >= 1 else 1 / v for v in (r.value, r.low, r.high))
        verb = "has" if self.measure in EXACT else "takes"
        same = _times(times) == "1"
        high, low = sorted((self.cost_a, self.cost_b), reverse=True)
        costs = (
            f", {written(high, self.measure)} against {written(low, self.measure)}"
            if math.isfinite(high) and (self.real or not same)
            else ""
        )
        ratio = _above_one(times) if self.real and same else _times(times)
        statement = f"{more} {verb} {ratio} times {PHRASES[self.measure]} {less}{costs}"
        if self.measure in EXACT:
            return statement if self.real else f"{self.a} and {self.b} have equally many {self.measure}"
        if r.n == 1:
            seen = f"{self.a} takes {PHRASES[self.measure]} {self.b}" if same else statement
            return f"{seen} (one seed, so without an interval)"
        over = f"({_times(min(ends))} to {_times(max(ends))}; {r.n} seeds)"
        if self.real:
            return f"{statement} {over}"
        if r.n < FEWEST_SEEDS and not same:
            return f"{statement} in the mean of {r.n} seeds, too few seeds to test"
        if (r.low > 1 or r.high < 1) and not same:
            few = f"too few seeds to test this many ratios, p after Holm's correction {self.p_holm:.2f}"
            return f"{statement} {over}; {few}"
        seen = "no difference was seen" if same else statement
        return f"{self.a} and {self.b} are not distinguishable in {self.measure}: {seen} {over}"

    def as_cost(self) -> CostRatio:
        return CostRatio(
            contrast=self.contrast,
            a=self.a,
            b=self.b,
            measure=self.measure,
            ratio=self.ratio,
            p_holm=None if math.isnan(self.p_holm) else self.p_holm,
            real=self.real,
            verdict=self.verdict,
            cost_a=None if math.isnan(self.cost_a) else self.cost_a,
            cost_b=None if math.isnan(self.cost_b) else self.cost_b,
        )


def written(cost: float, measure: str) -> str:
    """A cost with its unit: `4.8 ms`, `3 min 05 s`, `812 MB`, `4,810`."""
    if measure.startswith("seconds"):
        return f"{1000 * cost:.3g} ms" if cost < 1 else duration(cost)
    if measure == "peak memory":
        return f"{cost / 1e9:.1f} GB" if cost >= 1e9 else f"{cost / 1e6:.3g} MB"
    return f"{cost:,.0f}"


def cost_of(record: RunRecord, measure: str) -> float | None:
    """One measure from a run's record; None if it was not measured or is 0.

    The memory of a whole process is no measure of a run.
    """
    training, scoring, layers = record.training, record.scoring.get("test"), record.layers
    value: float | None
    match measure:
        case "seconds per epoch":
            value = training.seconds / training.epochs if training.seconds and training.epochs else None
        case "seconds to the stop":
            value = training.seconds
        case "seconds to score":
            value = scoring.seconds if scoring and scoring.seconds >= SHORTEST else None
        case "peak memory":
            value = training.peak_memory if training.memory_of == "tensors" else None
        case _:
            value = getattr(layers, measure.replace("-", "_")) if layers else None
    return float(value) if value else None


def ratio_of(contrast: str, a: str, b: str, measure: str, logs: Floats, *, level: float = 0.95) -> Ratio:
    """The geometric mean of b / a over the seeds, from the logarithms of the ratios (seeds,).
    Interval and p are Student's t on that scale."""
    mean, seeds = float(logs.mean()), len(logs)
    if measure in EXACT:
        return Ratio(
            contrast,
            a,
            b,
            measure,
            Estimate(round(math.exp(mean), 12), math.nan, math.nan, seeds, "exact", level, "seeds"),
        )
    margin, p = resampled(logs, 0.0, level=level) if seeds > 1 else (math.nan, math.nan)
    low, value, high = (math.exp(mean + d) for d in (-margin, 0.0, margin))
    return Ratio(
        contrast, a, b, measure, Estimate(value, low, high, seeds, "t of logarithms", level, "seeds"), p
    )


def compare_costs(
    records: Mapping[str, Mapping[str, RunRecord]],
    contrasts: Sequence[tuple[str, str, str]],
    *,
    level: float = 0.95,
) -> list[Ratio]:
    """The ratios of every contrast, over the seeds that both variants have.

    Holm's correction covers the measured ratios as one family. A pair in several contrasts counts
    once.
    """
    ratios: list[Ratio] = []
    for contrast, a, b in contrasts:
        seeds = [seed for seed in records.get(a, {}) if seed in records.get(b, {})]
        for measure in PHRASES:
            pairs = [
                (cost_of(records[a][seed], measure), cost_of(records[b][seed], measure))
                for seed in seeds
                if measure != "multiply-adds" or _counted_alike(records[a][seed], records[b][seed])
            ]
            both = np.array([pair for pair in pairs if all(pair)], dtype=float)
            if len(both):
                found = ratio_of(contrast, a, b, measure, np.log(both[:, 1] / both[:, 0]), level=level)
                cost_a, cost_b = map(float, both.mean(0))
                ratios.append(replace(found, cost_a=cost_a, cost_b=cost_b))
    corrected = holm({(r.a, r.b, r.measure): r.p for r in ratios if not math.isnan(r.p)})
    return [replace(r, p_holm=corrected.get((r.a, r.b, r.measure), math.nan)) for r in ratios]


def _counted_alike(a: RunRecord, b: RunRecord) -> bool:
    """Whether the multiply-adds of both include those of attention, or those of neither."""
    return bool(a.layers and b.layers and a.layers.with_attention == b.layers.with_attention)


def _above_one(ratio: float) -> str:
    """A ratio that three digits would round to 1, with as many as tell it apart: `1.0003`."""
    return f"{ratio:.{math.ceil(-math.log10(ratio - 1))}f}"


def _times(ratio: float) -> str:
    return f"{ratio:.3g}" if ratio < 100 else f"{ratio:,.0f}"
