from __future__ import annotations

from stresslens.core.evidence import Curve
from stresslens.core.types import Finding
from stresslens.plugins.audits._attack_names import attack_kind
from stresslens.plugins.audits._finding import no_sign, not_checked, sign

AUDIT = "one attack"


def one_attack(curve: Curve) -> Finding:
    """The figures rest on attacks of which none takes several steps along the gradient. Minor: what
    is shown is accuracy under that attack, of which robust accuracy may be far below (Carlini et
    al. 2019)."""
    if not curve.attacks:
        return not_checked(AUDIT, "the curve does not say which attacks it rests on")
    names = ", ".join(dict.fromkeys(curve.attacks))
    if {attack_kind(name) for name in curve.attacks} & {"iterative", "smallest", "other"}:
        return no_sign(AUDIT, f"among the attacks are some of many steps: {names}", len(curve.attacks))
    return sign(
        AUDIT,
        f"robust accuracy rests on {names} alone, none of which takes several steps along the gradient",
        len(curve.attacks),
        "Call the figure accuracy under that attack, or run the fast or the standard protocol.",
        serious=False,
    )
