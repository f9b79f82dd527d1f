from __future__ import annotations

from stresslens.core.evidence import Curve
from stresslens.core.findings import no_sign, not_checked, sign
from stresslens.core.types import Finding

AUDIT = "steps at origin"


def steps_at_origin(curve: Curve) -> Finding:
    """The curve falls at its beginning and hardly afterwards.

    That is, the smallest radius, at most a tenth of the largest, already breaks more than 10 % of
    the images, and more than half of those that the largest breaks. Minor. Margins of trained
    models are spread out, so few images are broken at once. The curve falls like this if the model
    is not continuous (rounded input, randomness, a lookup), or is attacked in another mode than
    evaluated.
    """
    n = len(curve.smallest)
    radii = [eps for eps in curve.radii if eps > 0]
    if len(radii) < 2 or radii[0] > radii[-1] / 10 or not n:
        return not_checked(AUDIT, "no radius is as small as a tenth of the largest")
    clean = int((curve.smallest > 0).sum())
    first, last = (clean - int(curve.robust(eps).sum()) for eps in (radii[0], radii[-1]))
    evidence = f"radius {radii[0]:g} breaks {first:,} of {clean:,} images, {radii[-1]:g} breaks {last:,}"
    if first <= max(2, 0.1 * n) or 2 * first <= last or last > 0.95 * clean:
        return no_sign(AUDIT, evidence, n)
    return sign(
        AUDIT,
        evidence,
        n,
        "Attack at smaller radii. If the curve stays as low down to radius 0, the model's outputs depend on "
        "something other than the image: mode, randomness, rounding of its input.",
        serious=False,
    )
