from __future__ import annotations

from collections.abc import Sequence

from stresslens.core.evidence import Trace
from stresslens.core.findings import no_sign, not_checked, sign
from stresslens.core.types import Finding

AUDIT = "outside the ball"


def outside_the_ball(trace: Sequence[Trace]) -> Finding:
    """Attacks returned images outside their ball or the box [0, 1].

    Such images are never counted as broken here. Counting them would overstate the attack, and
    discarding them understates it. A sign from two images of an attempt on.
    """
    if not trace:
        return not_checked(AUDIT, "nothing was attacked")
    n = max(one.n for one in trace)
    out = [one for one in trace if one.outside >= 2]
    if not out:
        return no_sign(AUDIT, f"{len(trace)} attempts returned images inside ball and box", n)
    worst = max(out, key=lambda one: (one.outside / one.n, one.eps))
    beyond = (
        f"the largest perturbation is {worst.excess:.3g} radii"
        if worst.excess > 1.001
        else "no perturbation is larger than the radius: pixels leave [0, 1], or are not finite"
    )
    return sign(
        AUDIT,
        f"{worst.attack}: {worst.outside:,} of {worst.n:,} returned images are outside "
        f"at radius {worst.eps:g}; {beyond}",
        n,
        "Project onto the ball around the clean image after each step, then clamp to [0, 1]. A factor near "
        "1/std (3.2 for MNIST, about 4 for CIFAR-10) means that the radius was divided by the standard "
        "deviation, or applied to normalised images. A factor of 2 means that the attacked image is stored "
        "instead of the perturbation.",
        items=[
            f"{one.attack} at {one.eps:g}: {one.outside:,} of {one.n:,} outside, up to {one.excess:.3g} radii"
            for one in out
        ],
    )
