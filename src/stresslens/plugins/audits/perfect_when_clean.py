from __future__ import annotations

from stresslens.core.evidence import Curve
from stresslens.core.findings import no_sign, not_checked, sign
from stresslens.core.types import Count, Finding

AUDIT = "perfect when clean"


def perfect_when_clean(curve: Curve, *, least: Count = 100) -> Finding:
    """Every image is classified correctly without attack.

    Minor: it may be true, but labels taken from the model's own predictions look the same, and then
    the model's errors are missing from the robust accuracy.
    """
    n = len(curve.smallest)
    if n < least:
        return not_checked(AUDIT, f"{n} images are too few; at least {least} are needed")
    if (curve.smallest > 0).all() and (curve.reported is None or curve.reported < 1):
        return sign(
            AUDIT,
            f"all {n:,} images are correct without attack",
            n,
            "Check that the labels are those of the data set, not the model's predictions, "
            "and that the images were not chosen because they are classified correctly.",
            serious=False,
        )
    return no_sign(
        AUDIT,
        f"{int((curve.smallest <= 0).sum()):,} of {n:,} images are misclassified without attack, or the "
        "record agrees",
        n,
    )
