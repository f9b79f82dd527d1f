from __future__ import annotations

from stresslens.core.evidence import Probe
from stresslens.core.types import Finding
from stresslens.plugins.audits._attack_probe import middle
from stresslens.plugins.audits._finding import no_sign, not_checked, sign
from stresslens.plugins.audits.silent_success import silent_success

AUDIT = "not returned"


def not_returned(probe: Probe) -> Finding:
    """`silent_success` where attacks stop at success: the protocol is run to its end, and what it
    returns compared with what it met (Pintor et al. 2022, indicator 2). A sign from two images
    on."""
    eps = middle(probe)
    _, traces = probe.broken(probe.protocol, eps, to_end=True)
    n = max((one.n for one in traces), default=0)
    found = silent_success(traces)
    if found.status == "not checked":
        return not_checked(AUDIT, found.evidence)
    if found.status == "sign":
        return sign(AUDIT, found.evidence, n, found.remedy, items=found.items)
    return no_sign(
        AUDIT, f"run to their end at radius {eps:g}, {len(traces)} attacks return what they found", n
    )
