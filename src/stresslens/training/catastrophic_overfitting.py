"""Catastrophic overfitting (Wong et al. 2020): a model is robust to the attack of its training and
to no other."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from stresslens.evaluation.record import Note
from stresslens.training.epoch_log import EpochMetrics

KIND = "overfitted to its attack"


def findings(lines: Sequence[EpochMetrics]) -> list[Note]:
    """The finding for the record of an adversarial training, from the lines of metrics.jsonl; an
    empty list if no epoch is bad.

    An epoch is bad if the accuracy under the guard (PGD in the same ball) is below half of that under
    the training attack, and the two differ by more than three standard deviations of the difference
    of two shares of that many images. These figures cannot tell whether the model has learned to
    mislead the attack, or the attack was too weak from the start: on MNIST, FGSM without a random
    start gives 97 % against 0 % in both cases.
    """
    epochs = [(line.epoch, line.objective) for line in lines if "guarded" in line.objective]
    bad = [(epoch, figures) for epoch, figures in epochs if _is_bad(figures)]
    if not bad:
        return []
    epoch, worst = max(bad, key=lambda pair: pair[1]["attack_accuracy"] - pair[1]["guard_accuracy"])
    best_epoch, best_accuracy = max(
        ((e, f["guard_accuracy"]) for e, f in epochs if f["radius"] >= worst["radius"]),
        key=lambda pair: pair[1],
    )
    attack, guard, n, radius = (
        worst[name] for name in ("attack_accuracy", "guard_accuracy", "guarded", "radius")
    )
    message = (
        f"in epoch {epoch} the model classifies {attack:.0%} of {n:.0f} training images correctly under "
        f"the attack of its training, and {guard:.0%} under PGD in the same ball, of radius {radius:.3g} "
        f"(best under PGD: {best_accuracy:.0%} in epoch {best_epoch}; such a gap in {len(bad)} of the "
        f"{len(epochs)} logged epochs, first in {bad[0][0]}). This is catastrophic overfitting, or the "
        "attack is too weak for this ball: train with several untargeted steps that cross it (pgd); a single "
        "step needs a random start and at most 1.25 radii "
        "({fgsm: {random_start: true, relative_step: 1.25}}), or a smaller radius"
    )
    return [Note(kind=KIND, message=message)]


def _is_bad(figures: Mapping[str, float]) -> bool:
    attack, guard = figures["attack_accuracy"], figures["guard_accuracy"]
    return guard < attack / 2 and attack - guard > 3 * math.sqrt(0.5 / figures["guarded"])
