from __future__ import annotations

from itertools import combinations

from stresslens.core.evidence import Probe
from stresslens.core.findings import no_sign, not_checked, sign
from stresslens.core.types import Finding
from stresslens.plugins.audits._attack_probe import ladder, listed

AUDIT = "ladder rises"


def ladder_rises(probe: Probe) -> Finding:
    """The protocol breaks an image at a smaller radius, but not at a larger one.

    Each radius is attacked separately (Athalye et al. 2018, section 3); a curve found by bisection
    cannot show this. A sign from two images between two radii on, serious from a twentieth of the
    images on.
    """
    rungs = ladder(probe)
    if len(rungs) < 2:
        return not_checked(AUDIT, "there is one radius only")
    n = len(probe.labels)
    escapes = {
        (near, far): probe.positions[rungs[near] & ~rungs[far]]
        for near, far in combinations(sorted(rungs), 2)
    }
    (near, far), images = max(escapes.items(), key=lambda item: len(item[1]))
    evidence = f"{len(images)} of {n} images are broken at radius {near:g} and survive {far:g}"
    if len(images) < 2:
        return no_sign(AUDIT, f"over {len(rungs)} radii, each attacked separately: {evidence}", n)
    return sign(
        AUDIT,
        evidence,
        n,
        "At the larger radius the attack is weaker: let its step be a share of the radius, start also from "
        "the adversarial images of a smaller radius, and take more steps.",
        serious=len(images) >= max(3, 0.05 * n),
        items=[
            f"broken at {a:g}, not at {b:g}: image {listed(escaped)}"
            for (a, b), escaped in escapes.items()
            if len(escaped) >= 2
        ],
    )
