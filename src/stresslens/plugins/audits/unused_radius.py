from __future__ import annotations

import math
from collections.abc import Sequence

from stresslens.core.evidence import Curve, Trace
from stresslens.core.findings import no_sign, not_checked, sign
from stresslens.core.types import Chance, Count, Finding
from stresslens.plugins.audits._attack_names import attack_kind

AUDIT = "unused radius"


def unused_radius(curve: Curve, trace: Sequence[Trace], *, least: Chance = 0.8, images: Count = 8) -> Finding:
    """Gradient attacks returned no perturbation near the edge of the ball.

    A sign if the largest perturbation is below `least` of the radius. Steps along the gradient end
    at the edge; an attack that stays inside got a smaller radius than reported (a known mistake is
    ε times the standard deviation), or cannot reach the edge. Minimum-norm attacks, and those on
    fewer than `images` images, are left out; so is a single step in l1, which changes one pixel, at
    most to the edge of the box.
    """
    kinds = ("iterative",) if curve.norm == "l1" else ("single step", "iterative")
    attempts = [
        one
        for one in trace
        if one.n - one.broke >= images
        and one.eps > 0
        and attack_kind(one.attack) in kinds
        and math.isfinite(one.excess)
    ]
    if not attempts:
        return not_checked(AUDIT, f"no attack along the gradient left {images} images unbroken")
    n = max(one.n for one in attempts)
    inside = [one for one in attempts if one.excess < least]
    if not inside:
        return no_sign(AUDIT, f"{len(attempts)} attempts reached at least {least:g} of their radius", n)
    worst = min(inside, key=lambda one: one.excess)
    factor = f", 1/{1 / worst.excess:.3g} of it" if worst.excess > 0 else ""
    return sign(
        AUDIT,
        f"{worst.attack}: the largest perturbation of {worst.n:,} images is {worst.excess:.3g} "
        f"of the radius {worst.eps:g}{factor}",
        n,
        "Give the radius in pixel units of images in [0, 1] and normalise inside the model; a factor near "
        "the standard deviation (0.31 for MNIST, about 0.25 for CIFAR-10) means that the radius was "
        "multiplied by it. Otherwise the steps are too short or the gradient is zero.",
        items=[f"{one.attack} at {one.eps:g}: at most {one.excess:.3g} of the radius" for one in inside],
    )
