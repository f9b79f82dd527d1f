from __future__ import annotations

from stresslens.core.evidence import Curve
from stresslens.core.types import Count, Finding
from stresslens.plugins.audits._finding import no_sign, not_checked, sign

AUDIT = "perfect when clean"


def perfect_when_clean(curve: Curve, *, least: Count = 100) -> Finding:
    """Every image is right unattacked. Minor: it may be so; it is also what labels taken from the
    model's own answers look like, and then the errors of the model are missing from the robust
    accuracy."""
    n = len(curve.smallest)
    if n < least:
        return not_checked(AUDIT, f"{n} images are too few to wonder (from {least} on)")
    if (curve.smallest > 0).all() and (curve.reported is None or curve.reported < 1):
        return sign(
            AUDIT,
            f"all {n:,} images are right unattacked",
            n,
            "See that the labels are the data's own, not the model's predictions, and that the images were not chosen for being "
            "right.",
            serious=False,
        )
    return no_sign(
        AUDIT,
        f"{int((curve.smallest <= 0).sum()):,} of {n:,} images are wrong unattacked, or the record agrees",
        n,
    )
