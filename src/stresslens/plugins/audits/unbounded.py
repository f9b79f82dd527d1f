from __future__ import annotations

import math

from stresslens.core.evidence import Probe
from stresslens.core.findings import no_sign, sign
from stresslens.core.types import Finding

AUDIT = "unbounded"


def unbounded(probe: Probe) -> Finding:
    """The protocol does not break all images although every image of the box is allowed.

    See Athalye et al. (2018), section 3, and Carlini et al. (2019). A sign from two surviving
    images on, serious from a tenth of the images on.
    """
    n = len(probe.labels)
    broken, _ = probe.broken(probe.protocol, math.inf)
    left = int((~broken).sum())
    evidence = f"without a bound {left} of {n} images stay correct"
    if left < 2:
        return no_sign(AUDIT, evidence, n)
    return sign(
        AUDIT,
        evidence,
        n,
        "The attack fails where success is certain, so its figures at small radii are not informative: "
        "check whether gradients are zero, and whether steps grow with the radius.",
        serious=left >= max(3, 0.1 * n),
    )
