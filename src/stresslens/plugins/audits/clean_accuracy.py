from __future__ import annotations

from stresslens.core.evidence import Curve
from stresslens.core.types import Finding
from stresslens.plugins.audits._finding import no_sign, not_checked, sign

AUDIT = "clean accuracy"


def clean_accuracy(curve: Curve) -> Finding:
    """The unattacked accuracy that the attack's figures start from is not the one the model's own record has.

    A sign from two images on: another mode, other preprocessing, other labels or other weights are
    being attacked.
    """
    n = len(curve.smallest)
    right = int((curve.smallest > 0).sum())
    if curve.reported is None or n == 0:
        return not_checked(AUDIT, "the model's own clean accuracy on these images is not known")
    differ = right - curve.reported * n
    if abs(differ) < 1.5:
        return no_sign(
            AUDIT, f"{right:,} of {n:,} images are right unattacked, as the model's record says", n
        )
    return sign(
        AUDIT,
        f"{100 * right / n:.2f} % of {n:,} images are right unattacked; the model's record says {100 * curve.reported:.2f} %",
        n,
        "Attack what was evaluated: evaluation mode, images in [0, 1] with the normalising inside the model, true labels (not the "
        "model's own answers), the same weights.",
    )
