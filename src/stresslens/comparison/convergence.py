"""How fast recipes learn against each other: accuracy on validation epoch by epoch, where each
starts and when it has converged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stresslens.comparison.schema import Convergence, DifferenceAtEpoch
from stresslens.comparison.tested_run import recipes_of
from stresslens.config.study_record import read_study_record
from stresslens.core.run_folder import RunFolder
from stresslens.core.types import Estimate
from stresslens.evaluation.record import read_record
from stresslens.metrics.intervals import Floats, t_mean, wilson
from stresslens.training.epoch_log import EpochMetrics

LISTED = 24
"""Epochs that a difference is told at; of more, as many, closer together at the start."""
NEAR = 0.01
"""A recipe has converged at the first epoch within so much of its best."""


SAME = 0.0005
"""A difference at the start that is none, as percentages are written."""


@dataclass(frozen=True)
class Learning:
    """Accuracies (seeds, epochs) of one recipe on `n` validation images, at the `epochs` that all
    its seeds were watched at."""

    epochs: Sequence[int]
    accuracies: Floats
    n: int

    @property
    def mean(self) -> Floats:
        return np.asarray(self.accuracies.mean(0))

    @property
    def converged(self) -> int:
        return self.first(float(self.mean.max()) - NEAR) or self.epochs[-1]

    def first(self, accuracy: float) -> int | None:
        """The first epoch with at least this accuracy, on average over the seeds."""
        there = np.flatnonzero(self.mean >= accuracy - 1e-12)
        return self.epochs[int(there[0])] if len(there) else None


def study_convergence(folder: Path) -> list[Convergence]:
    """For every contrast of a study, on the seeds both have and the epochs both were watched at."""
    recipes = recipes_of(folder, lambda each: each.record.exists() and read_record(each).status == "finished")
    found = []
    for contrast, a, b in read_study_record(folder).contrasts:
        seeds = [seed for seed in recipes.get(a, {}) if seed in recipes.get(b, {})]
        first, second = (
            _learning([recipes[run][seed] for seed in seeds]) if seeds else None for run in (a, b)
        )
        if first is not None and second is not None:
            found.append(convergence_of(contrast, a, b, first, second))
    return [each for each in found if each]


def convergence_of(contrast: str, a: str, b: str, first: Learning, second: Learning) -> Convergence | None:
    """b minus a at each epoch that both were watched at, and in words where each starts and when it
    has converged; None where they share fewer than two epochs."""
    shared = [epoch for epoch in first.epochs if epoch in second.epochs]
    if len(shared) < 2:
        return None
    places = sorted({round(place) for place in np.geomspace(1, len(shared), min(LISTED, len(shared)))})
    epochs = []
    for epoch in (shared[place - 1] for place in places):
        one, other = (each.accuracies[:, list(each.epochs).index(epoch)] for each in (first, second))
        epochs.append(DifferenceAtEpoch(epoch=epoch, difference=_difference(one, other, first.n)))
    return Convergence(
        contrast=contrast,
        a=a,
        b=b,
        seeds=len(first.accuracies),
        n=first.n,
        epochs=epochs,
        start={a: float(first.mean[0]), b: float(second.mean[0])},
        best={a: float(first.mean.max()), b: float(second.mean.max())},
        converged={a: first.converged, b: second.converged},
        said=_said(a, b, first, second),
    )


def _said(a: str, b: str, first: Learning, second: Learning) -> str:
    (ahead, fast), (behind, slow) = sorted(
        ((a, first), (b, second)), key=lambda each: -float(each[1].mean[0])
    )
    ends = ", ".join(f"{name} in epoch {each.converged}" for name, each in ((ahead, fast), (behind, slow)))
    start, after = float(fast.mean[0]), f"after epoch {fast.epochs[0]}"
    if start - float(slow.mean[0]) < SAME:
        return f"{ahead} and {behind} start alike, at {100 * start:.1f} % {after}; within a point of its best: {ends}"
    caught = slow.first(start)
    catching = f"reaches in epoch {caught}" if caught else f"never reaches in {slow.epochs[-1]} epochs"
    starts = f"{ahead} starts ahead: {100 * start:.1f} % {after} against {100 * slow.mean[0]:.1f} %"
    return f"{starts}, which {behind} {catching}; within a point of its best: {ends}"


def _difference(one: Floats, other: Floats, n: int) -> Estimate:
    """The mean over paired seeds; of a single one between independent proportions (Newcombe 1998),
    which for the same images is wider than it need be."""
    if len(one) > 1:
        return t_mean(other - one)
    low, high = wilson(float(one[0]) * n, n), wilson(float(other[0]) * n, n)
    value = float(other[0] - one[0])
    down = float(np.hypot(high.value - high.low, low.high - low.value))
    up = float(np.hypot(high.high - high.value, low.value - low.low))
    return Estimate(value, value - down, value + up, n, "Newcombe", 0.95, "images")


def _learning(runs: Sequence[RunFolder]) -> Learning | None:
    lines = [_line(run) for run in runs]
    shared = sorted(set.intersection(*(set(line) for line in lines)))
    if not shared:
        return None
    n = read_record(runs[0]).data.sizes["validation"]
    return Learning(shared, np.array([[line[epoch] for epoch in shared] for line in lines]), n)


def _line(run: RunFolder) -> Mapping[int, float]:
    logged = EpochMetrics.read_lines(run.metrics)
    return {line.epoch: line.validation["accuracy"] for line in logged if "accuracy" in line.validation}
