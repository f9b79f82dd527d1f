from __future__ import annotations

from stresslens.core.evidence import Probe
from stresslens.core.findings import no_sign, not_checked, sign
from stresslens.core.types import Finding

AUDIT = "half range"


def half_range(probe: Probe) -> Finding:
    """Too many images stay correct at a linf radius of 0.5, where all can be made the same grey.

    At most the images of one class can then stay correct (Carlini et al. 2019). A sign from two
    images more than that on, serious from a twentieth of the images on.
    """
    if probe.norm != "linf":
        return not_checked(AUDIT, f"needs linf; the norm is {probe.norm}")
    n = len(probe.labels)
    broken, _ = probe.broken(probe.protocol, 0.5)
    left, most = int((~broken).sum()), int(probe.labels.bincount().max())
    evidence = f"at linf 0.5 {left} of {n} images stay correct; the largest class has {most}"
    if left < most + 2:
        return no_sign(AUDIT, evidence, n)
    return sign(
        AUDIT,
        evidence,
        n,
        "The attack fails where success is certain: check whether gradients are zero or misleading, "
        "and whether the steps cross the ball.",
        serious=left >= most + max(3, 0.05 * n),
    )
