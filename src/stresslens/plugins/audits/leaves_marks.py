from __future__ import annotations

from stresslens.core.evidence import Probe
from stresslens.core.types import Finding
from stresslens.plugins.audits._attack_probe import middle
from stresslens.plugins.audits._finding import no_sign, sign

AUDIT = "leaves marks"


def leaves_marks(probe: Probe) -> Finding:
    """An attack leaves the model in another state: its mode, gradients in its parameters, or that
    they ask for some.

    What is judged after it, other attacks included, is then another model. Any such attack is a sign.
    """
    probe.broken(probe.protocol, middle(probe))
    n = len(probe.labels)
    marks = tuple(dict.fromkeys(probe.disturbed))
    if not marks:
        return no_sign(AUDIT, f"{len(probe.protocol)} attacks leave the model as it was", n)
    return sign(
        AUDIT,
        "; ".join(marks[:3]),
        n,
        "Let the attack call model.eval() itself and put the mode back in a finally, and take gradients with torch.autograd.grad "
        "of the input alone.",
        items=marks,
    )
