from __future__ import annotations

import math

from stresslens.core.evidence import Probe
from stresslens.core.types import Finding
from stresslens.plugins.audits._finding import no_sign, sign

AUDIT = "unbounded"


def unbounded(probe: Probe) -> Finding:
    """With every image of the box allowed, the protocol must break all (Athalye et al. 2018,
    section 3; Carlini et al. 2019).

    A sign from two images left on, serious from a tenth of them.
    """
    n = len(probe.labels)
    broken, _ = probe.broken(probe.protocol, math.inf)
    left = int((~broken).sum())
    said = f"without a bound {left} of {n} images stay right"
    if left < 2:
        return no_sign(AUDIT, said, n)
    return sign(
        AUDIT,
        said,
        n,
        "The attack fails where success is certain, so its figures at small radii say nothing: see whether gradients are zero, and "
        "whether steps grow with the radius.",
        serious=left >= max(3, 0.1 * n),
    )
