from __future__ import annotations

from stresslens.core.evidence import Curve
from stresslens.core.types import Finding
from stresslens.plugins.audits._finding import no_sign, sign

AUDIT = "dropped images"


def dropped_images(curve: Curve) -> Finding:
    """Fewer images were judged than were asked for, as when a last, partial batch is left out. One
    is a sign."""
    n, asked = len(curve.smallest), curve.asked
    if n == asked:
        return no_sign(AUDIT, f"all {n:,} images are in the figures", n)
    return sign(
        AUDIT,
        f"{asked:,} images were asked for, and {n:,} are in the figures",
        asked,
        "Attack and count every image, the last partial batch too (no drop_last), and images already wrong as not robust.",
    )
