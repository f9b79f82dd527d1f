from __future__ import annotations

from stresslens.core.evidence import Probe
from stresslens.core.types import Finding
from stresslens.plugins.audits._finding import no_sign, not_checked, sign

AUDIT = "half range"


def half_range(probe: Probe) -> Finding:
    """At a radius of 0.5 in linf every image can be made the same grey, so no more than the images
    of one class can stay right (Carlini et al. 2019). A sign from two images above that on, serious
    from a twentieth of the images."""
    if probe.norm != "linf":
        return not_checked(AUDIT, f"is of linf; the norm is {probe.norm}")
    n = len(probe.labels)
    broken, _ = probe.broken(probe.protocol, 0.5)
    left, most = int((~broken).sum()), int(probe.labels.bincount().max())
    said = f"at linf 0.5 {left} of {n} images stay right; the largest class has {most}"
    if left < most + 2:
        return no_sign(AUDIT, said, n)
    return sign(
        AUDIT,
        said,
        n,
        "The attack fails where none can: see whether gradients are zero or misleading, and whether the steps cross the ball.",
        serious=left >= most + max(3, 0.05 * n),
    )
