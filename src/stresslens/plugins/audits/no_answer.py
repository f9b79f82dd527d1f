from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stresslens.core.evidence import Curve, Trace
from stresslens.core.findings import no_sign, not_checked, sign
from stresslens.core.types import Finding

AUDIT = "no answer"


def no_answer(curve: Curve, trace: Sequence[Trace]) -> Finding:
    """The model's scores are not finite: NaN, or a highest score that is infinite.

    No answer is a wrong answer, so these images count as misclassified or broken. A robust accuracy
    that rests on them says how often the model fails to compute, not where it decides wrongly. A
    sign from one such image on; serious from two images and 1 % on, if their minimal radius is that
    of a scores without an answer. It sees only what the attacks meet: they do not look for such
    images.
    """
    if curve.no_answer is None:
        return not_checked(AUDIT, "the result does not say which images have no answer")
    n, met = len(curve.smallest), sum(one.no_answer for one in trace)
    clean = int(np.count_nonzero(curve.no_answer & (curve.smallest == 0)))
    broken = int(np.count_nonzero(curve.no_answer & (curve.smallest > 0)))
    if not clean + broken + met:
        return no_sign(AUDIT, f"the scores of {n:,} images, and of all that attacks broke, are finite", n)
    evidence = (
        f"the scores of {clean:,} of {n:,} images are not finite (NaN or infinity) without attack, and those "
        f"of {broken:,} under attack at their minimal radius: no answer, which counts as wrong"
    )
    if not clean + broken:
        evidence = (
            f"attacks met scores that are not finite (NaN or infinity) {met:,} times; "
            "at their minimal radius all broken images get another class"
        )
    return sign(
        AUDIT,
        evidence,
        n,
        "Find where the forward pass leaves the numbers (a logarithm or root of a negative value, "
        "a division by zero, an overflow), and attack the repaired model.",
        serious=clean + broken >= max(2, 0.01 * n),
    )
