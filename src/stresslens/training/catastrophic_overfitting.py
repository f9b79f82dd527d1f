"""Catastrophic overfitting (Wong et al. 2020): a model that withstands the attack it is trained on,
and no other."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from stresslens.evaluation.record import Note

KIND = "overfitted to its attack"


def findings(lines: Sequence[Mapping[str, Any]]) -> list[Note]:
    """What the lines of metrics.jsonl say of a hardened training, as notes for its record: one, if
    any epoch is bad.

    An epoch is bad where the guard's accuracy is below half the attack's and the two differ by more
    than three deviations of a difference of two shares of that many images. Whether the model has
    learned to mislead the attack, or the attack never stood for the ball, these figures do not say:
    on MNIST, FGSM without a random start is at 97 % against 0 % by either account.
    """
    seen = [
        (int(line["epoch"]), line["objective"]) for line in lines if "guarded" in line.get("objective", {})
    ]
    bad = [(epoch, figures) for epoch, figures in seen if _apart(figures)]
    if not bad:
        return []
    epoch, worst = max(bad, key=lambda each: each[1]["attack_accuracy"] - each[1]["guard_accuracy"])
    best, height = max(
        ((e, f["guard_accuracy"]) for e, f in seen if f["radius"] >= worst["radius"]),
        key=lambda each: each[1],
    )
    own, guard, n, radius = (
        worst[name] for name in ("attack_accuracy", "guard_accuracy", "guarded", "radius")
    )
    message = (
        f"in epoch {epoch} the model answers {own:.0%} of {n:.0f} training images right under the attack it is trained on, and "
        f"{guard:.0%} under PGD in the same ball, of radius {radius:.3g} (PGD at best: {height:.0%} in epoch {best}; so far apart "
        f"in {len(bad)} of the {len(seen)} epochs logged, first in {bad[0][0]}). This is catastrophic overfitting, or an attack "
        "too weak to stand for the ball: train with several steps that cross it (pgd), untargeted; a single step wants a "
        "random start and at most 1.25 radii ({fgsm: {random_start: true, relative_step: 1.25}}), or a smaller radius"
    )
    return [Note(kind=KIND, message=message)]


def _apart(figures: Mapping[str, float]) -> bool:
    own, guard = figures["attack_accuracy"], figures["guard_accuracy"]
    return guard < own / 2 and own - guard > 3 * math.sqrt(0.5 / figures["guarded"])
