"""Catastrophic overfitting (Wong et al. 2020): a model that withstands the attack it is trained on, and no other."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any


def findings(lines: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """What the lines of metrics.jsonl say of a hardened training, as notes for its record: at most one, of the first bad epoch.

    An epoch is bad where the guard's accuracy is below half the attack's and the two differ by more than three deviations of a
    difference of two shares of that many images. The guard's accuracy having been more than twice as high before, and by as
    much, it is catastrophic overfitting; otherwise the attack never stood for the ball.
    """
    seen = [(int(line["epoch"]), line["objective"]) for line in lines if "guarded" in line.get("objective", {})]
    bad = [place for place, (_, figures) in enumerate(seen) if _apart(figures["attack_accuracy"], figures)]
    if not bad:
        return []
    epoch, figures = seen[bad[0]]
    own, guard, n, radius = (figures[name] for name in ("attack_accuracy", "guard_accuracy", "guarded", "radius"))
    told = (
        f"in epoch {epoch} (and {len(bad)} of {len(seen)} that were logged) the model answers {own:.0%} of {n:.0f} training images "
        f"right under the attack it is trained on, and {guard:.0%} under PGD in the same ball, of radius {radius:.3g}"
    )
    before = max((earlier for _, earlier in seen[: bad[0]]), key=lambda earlier: earlier["guard_accuracy"], default=figures)
    if _apart(before["guard_accuracy"], figures):
        remedy = (
            "Train with a random start and a step of at most 1.25 radii ({fgsm: {random_start: true, relative_step: 1.25}}), with "
            "more steps (pgd), or a smaller radius; select: robust keeps an epoch before it"
        )
        was = f"where it was {before['guard_accuracy']:.0%} before, at {before['radius']:.3g}"
        return [{"kind": "catastrophic overfitting", "message": f"{told}, {was}. {remedy}"}]
    remedy = "Train with a stronger attack: untargeted, in several steps that can cross the ball (pgd)"
    return [{"kind": "weak training attack", "message": f"{told}. {remedy}"}]


def _apart(accuracy: float, figures: Mapping[str, float]) -> bool:
    """Whether the guard's accuracy is below half of this one, by more than chance."""
    guard = figures["guard_accuracy"]
    return guard < accuracy / 2 and accuracy - guard > 3 * math.sqrt(0.5 / figures["guarded"])
