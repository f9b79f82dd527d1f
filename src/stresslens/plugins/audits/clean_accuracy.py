from __future__ import annotations

from stresslens.core.evidence import Curve
from stresslens.core.findings import no_sign, not_checked, sign
from stresslens.core.types import Finding

AUDIT = "clean accuracy"


def clean_accuracy(curve: Curve) -> Finding:
    """The clean accuracy of the attack differs from the one in the model's own record.

    A sign from two images on: the attacked model has another mode, other preprocessing, other
    labels or other weights.
    """
    n = len(curve.smallest)
    correct = int((curve.smallest > 0).sum())
    if curve.reported is None or n == 0:
        return not_checked(AUDIT, "the model's own clean accuracy on these images is not known")
    differ = correct - curve.reported * n
    if abs(differ) < 1.5:
        return no_sign(
            AUDIT, f"{correct:,} of {n:,} images are correct without attack, as the model's record says", n
        )
    return sign(
        AUDIT,
        f"{100 * correct / n:.2f} % of {n:,} images are correct without attack; "
        f"the model's record says {100 * curve.reported:.2f} %",
        n,
        "Attack the model as it was evaluated: in evaluation mode, with images in [0, 1] and the "
        "normalisation inside the model, true labels (not the model's predictions), and the same weights.",
    )
