"""Convergence speed of two variants: validation accuracy by epoch, where each starts, and when it
has converged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stresslens.comparison.difference import SAME
from stresslens.comparison.schema import Convergence, DifferenceAtEpoch
from stresslens.comparison.tested_run import variants_of
from stresslens.config.study_record import read_study_record
from stresslens.core.run_folder import RunFolder
from stresslens.core.types import Estimate
from stresslens.evaluation.record import read_record
from stresslens.metrics.intervals import Floats, newcombe, t_mean, wilson
from stresslens.metrics.random_effects import FEWEST_SEEDS
from stresslens.training.epoch_log import EpochMetrics

LISTED = 24
"""Largest number of epochs at which differences are listed. With more, this many are chosen, denser
at the start."""
NEAR = 0.01
"""A variant has converged at the first epoch whose accuracy is within this of its best."""


@dataclass(frozen=True)
class Learning:
    """Validation accuracies (seeds, epochs) of one variant on `n` images, at the `epochs` that all
    its seeds have measured."""

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
        """The first epoch with at least this accuracy, averaged over the seeds; None if there is
        none."""
        reached = np.flatnonzero(self.mean >= accuracy - 1e-12)
        return self.epochs[int(reached[0])] if len(reached) else None


def study_convergence(folder: Path) -> list[Convergence]:
    """Compare every contrast of a study, on the seeds that both variants have and the epochs that
    both have measured."""
    variants = variants_of(folder, lambda each: each.record.exists() and read_record(each).usable)
    found = []
    for contrast, a, b in read_study_record(folder).contrasts:
        seeds = [seed for seed in variants.get(a, {}) if seed in variants.get(b, {})]
        first, second = (
            _learning([variants[run][seed] for seed in seeds]) if seeds else None for run in (a, b)
        )
        if first is not None and second is not None:
            found.append(convergence_of(contrast, a, b, first, second))
    return [each for each in found if each]


def convergence_of(contrast: str, a: str, b: str, first: Learning, second: Learning) -> Convergence | None:
    """Accuracy of b minus a at each shared epoch, and a sentence on where each starts and when it
    has converged. None if they share fewer than two epochs."""
    shared = [epoch for epoch in first.epochs if epoch in second.epochs]
    if len(shared) < 2:
        return None
    positions = sorted(
        {round(position) for position in np.geomspace(1, len(shared), min(LISTED, len(shared)))}
    )
    epochs = []
    for epoch in (shared[position - 1] for position in positions):
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
        said=_sentence(a, b, first, second),
    )


def _sentence(a: str, b: str, first: Learning, second: Learning) -> str:
    (ahead, fast), (behind, slow) = sorted(
        ((a, first), (b, second)), key=lambda each: -float(each[1].mean[0])
    )
    ends = ", ".join(f"{name} in epoch {each.converged}" for name, each in ((ahead, fast), (behind, slow)))
    start, after = float(fast.mean[0]), f"after epoch {fast.epochs[0]}"
    if start - float(slow.mean[0]) < SAME:
        return (
            f"{ahead} and {behind} start alike, at {100 * start:.1f} % {after}; "
            f"within a point of its best: {ends}"
        )
    caught = slow.first(start)
    catching = f"reaches in epoch {caught}" if caught else f"never reaches in {slow.epochs[-1]} epochs"
    starts = f"{ahead} starts ahead: {100 * start:.1f} % {after} against {100 * slow.mean[0]:.1f} %"
    return f"{starts}, which {behind} {catching}; within a point of its best: {ends}"


def _difference(one: Floats, other: Floats, n: int) -> Estimate:
    """The mean difference over paired seeds. One or two seeds are too few for an interval over
    seeds; it is then that of two independent proportions (Newcombe 1998), which is wider than
    needed for the same images."""
    if len(one) >= FEWEST_SEEDS:
        return t_mean(other - one)
    before, after = wilson(float(one.mean()) * n, n), wilson(float(other.mean()) * n, n)
    low, high = newcombe(after, before)
    return Estimate(after.value - before.value, low, high, n, "Newcombe", 0.95, "images")


def _learning(runs: Sequence[RunFolder]) -> Learning | None:
    curves = [_accuracy_by_epoch(run) for run in runs]
    shared = sorted(set.intersection(*(set(curve) for curve in curves)))
    if not shared:
        return None
    n = read_record(runs[0]).data.sizes["validation"]
    return Learning(shared, np.array([[curve[epoch] for epoch in shared] for curve in curves]), n)


def _accuracy_by_epoch(run: RunFolder) -> Mapping[int, float]:
    logged = EpochMetrics.read_lines(run.metrics)
    return {line.epoch: line.validation["accuracy"] for line in logged if "accuracy" in line.validation}
