from __future__ import annotations

from stresslens.core.evidence import Curve
from stresslens.core.findings import no_sign, sign
from stresslens.core.types import Finding

AUDIT = "repeated images"


def repeated_images(curve: Curve) -> Finding:
    """Some images occur several times, with the same pixels and label.

    They are no independent evidence; robust accuracies count each once. A sign from two images that
    repeat others on, serious from a tenth of all images on: an interval that counted them all would
    be a twentieth too narrow.
    """
    distinct, n = len(curve.smallest), len(curve.smallest) + curve.repeated
    if curve.repeated < 2:
        return no_sign(AUDIT, f"{distinct:,} of {n:,} images are distinct", n)
    return sign(
        AUDIT,
        f"{curve.repeated:,} of {n:,} images repeat others, pixel by pixel; "
        f"the {distinct:,} distinct ones count",
        n,
        "Remove the duplicates (stresslens data check names them), and look at how the split was made: "
        "resampling, or a set that was joined to itself.",
        serious=curve.repeated >= 0.1 * n,
    )
