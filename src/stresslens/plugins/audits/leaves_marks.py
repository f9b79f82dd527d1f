from __future__ import annotations

from stresslens.core.evidence import Probe
from stresslens.core.findings import no_sign, sign
from stresslens.core.types import Finding
from stresslens.plugins.audits._attack_probe import informative_radius

AUDIT = "leaves marks"


def leaves_marks(probe: Probe) -> Finding:
    """An attack changes the model's state: its mode, gradients, or requires_grad of parameters.

    Everything that is measured afterwards, also by other attacks, is then of a changed model. Any
    such attack is a sign.
    """
    probe.broken(probe.protocol, informative_radius(probe))
    n = len(probe.labels)
    marks = tuple(dict.fromkeys(probe.disturbed))
    if not marks:
        return no_sign(AUDIT, f"{len(probe.protocol)} attacks leave the model as it was", n)
    return sign(
        AUDIT,
        "; ".join(marks[:3]),
        n,
        "Let the attack call model.eval() itself and restore the mode in a finally block, "
        "and compute gradients with torch.autograd.grad for the input alone.",
        items=marks,
    )
