from __future__ import annotations

from stresslens.core.evidence import Curve
from stresslens.core.findings import no_sign, not_checked, sign
from stresslens.core.types import Finding
from stresslens.plugins.audits._attack_names import attack_kind

AUDIT = "one attack"


def one_attack(curve: Curve) -> Finding:
    """None of the attacks takes several steps along the gradient.

    Minor: the result is the accuracy under that attack, and robust accuracy may be far lower
    (Carlini et al. 2019).
    """
    if not curve.attacks:
        return not_checked(AUDIT, "the curve does not name its attacks")
    names = ", ".join(dict.fromkeys(curve.attacks))
    if {attack_kind(name) for name in curve.attacks} & {"iterative", "smallest", "other"}:
        return no_sign(AUDIT, f"some of the attacks take many steps: {names}", len(curve.attacks))
    return sign(
        AUDIT,
        f"robust accuracy is from {names} alone, without several steps along the gradient",
        len(curve.attacks),
        "Call the result accuracy under that attack. Where the model has a gradient, run the fast or the "
        "standard protocol.",
        serious=False,
    )
