from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations

from stresslens.core.evidence import Row
from stresslens.core.findings import no_sign, not_checked, sign
from stresslens.core.types import Finding
from stresslens.plugins.audits._tables import (
    attacked_rows,
    is_serious,
    least,
    of_one_model,
    row_text,
    same_eps,
)

AUDIT = "norm mismatch"
ORDER = ("l1", "l2", "linf")
"""With the same radius, a ball of each norm lies inside that of the next."""


def norm_mismatch(table: Sequence[Row]) -> Finding:
    """The norm of an attack's name is not that of its row, or a ball inside another leaves less.

    "PGD-L2" in a row of linf is a sign, and serious. So is the same attack with the same radius that
    leaves more correct in linf than in l2, or in l2 than in l1: the larger ball contains the smaller
    one. That is a sign from two images on (one point if n is not known).
    """
    rows = attacked_rows(table)
    named = [row for row in rows if row.norm and row.named_norm]
    pairs = [
        (inner, outer)
        for group in of_one_model([row for row in rows if row.norm and row.eps > 0])
        for inner, outer in permutations(group, 2)
        if (inner.attack, inner.steps) == (outer.attack, outer.steps)
        and same_eps(inner, outer)
        and ORDER.index(inner.norm or "l1") < ORDER.index(outer.norm or "l1")
    ]
    if not named and not pairs:
        return not_checked(AUDIT, "no attack's name has a norm, and no attack has one radius in two norms")
    wrong = [row for row in named if row.norm != row.named_norm]
    swapped = [(a, b) for a, b in pairs if b.accuracy - a.accuracy >= least(a, b)]
    checked = len(named) + len(pairs)
    if not wrong and not swapped:
        return no_sign(AUDIT, f"{checked} rows and pairs agree on their norm", checked)
    first = (
        f"a row of {wrong[0].norm} is of an attack in {wrong[0].named_norm}"
        if wrong
        else f"{swapped[0][0].attack} leaves more in {swapped[0][1].norm} than in {swapped[0][0].norm}, "
        f"which is inside, at radius {swapped[0][0].eps:g}"
    )
    return sign(
        AUDIT,
        f"{len(wrong)} rows and {len(swapped)} pairs do not fit their norm: {first}",
        checked,
        "Give the norm of each attack. Radii of two norms are not comparable: l2 0.5 is about the length of "
        "linf 0.009 in every pixel of a 32×32 colour image.",
        serious=bool(wrong) or any(is_serious(*pair) for pair in swapped),
        items=[row_text(row) for row in wrong] + [f"{row_text(a)}; {row_text(b)}" for a, b in swapped],
    )
