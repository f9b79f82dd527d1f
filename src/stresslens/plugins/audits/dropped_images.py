from __future__ import annotations

from stresslens.core.evidence import Curve
from stresslens.core.findings import no_sign, sign
from stresslens.core.types import Finding

AUDIT = "dropped images"


def dropped_images(curve: Curve) -> Finding:
    """Fewer images were counted than the attack was given, for example without a last, partial
    batch.

    One missing image is a sign.
    """
    n, requested = len(curve.smallest), curve.asked
    if n == requested:
        return no_sign(AUDIT, f"all {n:,} images are in the figures", n)
    return sign(
        AUDIT,
        f"{requested:,} images were requested, and {n:,} are in the figures",
        requested,
        "Attack and count every image, also the last partial batch (no drop_last), "
        "and count images that are already misclassified as not robust.",
    )
