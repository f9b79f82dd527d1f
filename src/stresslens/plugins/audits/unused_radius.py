from __future__ import annotations

import math
from collections.abc import Sequence

from stresslens.core.evidence import Curve, Trace
from stresslens.core.types import Chance, Count, Finding
from stresslens.plugins.audits._attack_names import attack_kind
from stresslens.plugins.audits._finding import no_sign, not_checked, sign

AUDIT = "unused radius"


def unused_radius(curve: Curve, trace: Sequence[Trace], *, least: Chance = 0.8, images: Count = 8) -> Finding:
    """Attacks that fill their ball returned no perturbation near its edge. A sign where the largest
    is below `least` of the radius.

    Steps along the gradient end at the edge, so an attack inside it was given a smaller radius than
    is reported (ε times the deviation is a known mistake), or cannot get there. Attacks for the
    smallest perturbation, and those on fewer than `images` images, are left out, as is a single
    step in l1, which moves one pixel, at most to the edge of the box.
    """
    kinds = ("iterative",) if curve.norm == "l1" else ("single step", "iterative")
    told = [
        one
        for one in trace
        if one.n - one.broke >= images
        and one.eps > 0
        and attack_kind(one.attack) in kinds
        and math.isfinite(one.excess)
    ]
    if not told:
        return not_checked(AUDIT, f"no attack along the gradient left {images} images unbroken")
    n = max(one.n for one in told)
    inside = [one for one in told if one.excess < least]
    if not inside:
        return no_sign(AUDIT, f"{len(told)} attempts reached at least {least:g} of their radius", n)
    worst = min(inside, key=lambda one: one.excess)
    factor = f", 1/{1 / worst.excess:.3g} of it" if worst.excess > 0 else ""
    return sign(
        AUDIT,
        f"{worst.attack}: the largest perturbation of {worst.n:,} images is {worst.excess:.3g} of the radius {worst.eps:g}{factor}",
        n,
        "Give the radius in pixel units of images in [0, 1] and normalise inside the model; a factor near the deviation (0.31 for "
        "MNIST, about 0.25 for CIFAR-10) means that it was multiplied by it. Otherwise the steps are too short or the gradient is "
        "zero.",
        items=[f"{one.attack} at {one.eps:g}: at most {one.excess:.3g} of the radius" for one in inside],
    )
