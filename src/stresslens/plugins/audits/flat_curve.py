from __future__ import annotations

from itertools import combinations

from stresslens.core.evidence import Curve, largest_class
from stresslens.core.findings import no_sign, not_checked, sign
from stresslens.core.types import Finding
from stresslens.plugins.audits._tables import stalls

AUDIT = "flat curve"


def flat_curve(curve: Curve) -> Finding:
    """Robust accuracy hardly falls although the radius grows (Carlini et al. 2019).

    See "accuracy against perturbation budget" there. A minor sign if a radius at least four times
    another adds less than a fourth to the fall so far, with more than half of the clean accuracy
    left: so do the margins of some models, and other audits attack the survivors again. In linf it
    is a sign if too much is left at 0.5 or more, where any image can be made grey, so that only
    images of one class can stay correct: serious from two images above the largest class on; if the
    labels are not known, minor from half of the images on.
    """
    n = len(curve.smallest)
    if curve.targeted:
        return not_checked(AUDIT, "only the target class counts as success")
    right = {eps: int(curve.robust(eps).sum()) for eps in curve.radii if eps > 0}
    clean = int((curve.smallest > 0).sum())
    pairs = [(near, far) for near, far in combinations(sorted(right), 2) if far >= 4 * near]
    most = clean / 2 if curve.labels is None else largest_class(curve) + 1
    grey = [eps for eps in right if curve.norm == "linf" and eps >= 0.5 and right[eps] > most]
    if not n or (not pairs and not grey):
        return not_checked(AUDIT, "no two radii lie a factor of four apart")
    flat = [
        (near, far) for near, far in pairs if stalls(clean / n, right[near] / n, right[far] / n, far / near)
    ]
    if not flat and not grey:
        return no_sign(
            AUDIT,
            f"larger radii break more: {clean:,} correct without attack, {right[max(right)]:,} at "
            f"{max(right):g}",
            n,
        )
    near, far = (min(right), grey[0]) if grey else max(flat, key=lambda pair: pair[1] / pair[0])
    return sign(
        AUDIT,
        f"of {clean:,} images that are correct without attack, {right[near]:,} survive radius {near:g}, "
        f"and {right[far]:,} still survive {far:g}"
        + (
            f"; at most {most - 1:,} can, the images of one class"
            if grey and curve.labels is not None
            else ""
        ),
        n,
        "The attack does not use its radius: give it more steps, a step that is a share of the radius, "
        "random starts, another loss (dlr_targeted), and run the standard protocol.",
        serious=bool(grey) and curve.labels is not None,
        items=[f"radius {eps:g}: {count:,} of {n:,} correct" for eps, count in right.items()],
    )
