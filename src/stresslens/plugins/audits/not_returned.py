from __future__ import annotations

from stresslens.core.evidence import Probe
from stresslens.core.findings import no_sign, not_checked, sign
from stresslens.core.types import Finding
from stresslens.plugins.audits._attack_probe import informative_radius
from stresslens.plugins.audits.silent_success import silent_success

AUDIT = "not returned"


def not_returned(probe: Probe) -> Finding:
    """`silent_success` for attacks that stop at success: the protocol is run to its end.

    The returned images are compared with the iterates (Pintor et al. 2022, indicator 2). A sign
    from two images on.
    """
    eps = informative_radius(probe)
    _, traces = probe.broken(probe.protocol, eps, to_end=True)
    n = max((one.n for one in traces), default=0)
    finding = silent_success(traces)
    if finding.status == "not checked":
        return not_checked(AUDIT, finding.evidence)
    if finding.status == "sign":
        return sign(AUDIT, finding.evidence, n, finding.remedy, items=finding.items)
    return no_sign(
        AUDIT, f"run to their end at radius {eps:g}, {len(traces)} attacks return what they found", n
    )
