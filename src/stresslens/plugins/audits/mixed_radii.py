from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations

from stresslens.core.evidence import Row
from stresslens.core.findings import no_sign, not_checked, sign
from stresslens.core.types import Finding
from stresslens.plugins.audits._tables import attacked_rows, row_text

AUDIT = "mixed radii"
LEVELS, TOLERANCE = 255, 0.05
MOST_LEVELS = 32
FAR = 30


def mixed_radii(table: Sequence[Row]) -> Finding:
    """Some radii are in grey levels (8) and others in units of white (8/255 = 0.0314).

    A sign if two radii of one norm differ by a factor of 255, within 5 %, which is serious. So is a
    whole radius from 2 on beside k/255 (k up to 32), if the table gives no norm. It is minor if the
    radius beside it is any other that is 30 times smaller and not whole.
    """
    rows = list({(row.norm, row.eps): row for row in attacked_rows(table) if row.eps > 0}.values())
    pairs = [(large, small) for large, small in permutations(rows, 2) if large.eps > small.eps]
    pairs = [(a, b) for a, b in pairs if (a.norm or "") == (b.norm or "")]
    if not pairs:
        return not_checked(AUDIT, "the table has no two radii of one norm")
    levels = [(a, b) for a, b in pairs if abs(a.eps / b.eps / LEVELS - 1) <= TOLERANCE]
    unclear = [
        (a, b)
        for a, b in pairs
        if a.norm is None and a.eps >= 2 and a.eps % 1 == 0 and b.eps % 1 and a.eps >= FAR * b.eps
    ]
    levels = levels or [(a, b) for a, b in unclear if _is_level(b.eps)]
    found = levels or unclear
    if not found:
        return no_sign(AUDIT, f"in {len(pairs)} pairs the radii are in the same unit", len(pairs))
    large, small = found[0]
    means = f"{large.eps:g}/255 is {large.eps / LEVELS:.4g}"
    return sign(
        AUDIT,
        f"radii {large.eps:g} and {small.eps:g} stand in one table"
        + (
            f", a factor of {large.eps / small.eps:.4g} apart: {means}"
            if levels
            else f" without a norm; {means}"
        ),
        len(pairs),
        "Give all radii in units of white (8/255 or 0.0314), and the norm. Check that the attack itself got "
        "its radius in the unit of its images: 8 on images in [0, 1] is no bound at all.",
        serious=bool(levels),
        items=[f"{row_text(a)}; {row_text(b)}" for a, b in found],
    )


def _is_level(eps: float) -> bool:
    """Whether a radius is k/255, k up to 32, within 1 % of it."""
    k = round(eps * LEVELS)
    return 1 <= k <= MOST_LEVELS and abs(eps * LEVELS / k - 1) <= 0.01
