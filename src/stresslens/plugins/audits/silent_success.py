from __future__ import annotations

from collections.abc import Sequence

from stresslens.core.evidence import Trace
from stresslens.core.findings import no_sign, not_checked, sign
from stresslens.core.types import Finding

AUDIT = "silent success"


def silent_success(trace: Sequence[Trace]) -> Finding:
    """An iterate inside ball and box was adversarial, but the returned image is not.

    See Pintor et al. (2022), indicator 2. A sign from two images on. It cannot be seen of attacks
    that stop at the first success, nor on a random model, whose predictions for iterates and
    returned images are different draws.
    """
    if not trace:
        return not_checked(AUDIT, "nothing was attacked")
    trace = [one for one in trace if one.passes == 1]
    if not trace:
        return not_checked(AUDIT, "the model is random (see: deterministic)")
    n = max(one.n for one in trace)
    silent = [one for one in trace if one.silent >= 2]
    if not silent:
        return no_sign(AUDIT, f"{len(trace)} attempts returned the adversarial images that they found", n)
    worst = max(silent, key=lambda one: one.silent)
    return sign(
        AUDIT,
        f"{worst.attack}: for {worst.silent:,} of {worst.n:,} images an iterate was adversarial "
        f"and was not returned (radius {worst.eps:g})",
        n,
        "Keep, for each image, the best iterate of all steps and restarts (success first, then the loss), "
        "not the last.",
        items=[f"{one.attack} at {one.eps:g}: {one.silent:,} of {one.n:,}" for one in silent],
    )
