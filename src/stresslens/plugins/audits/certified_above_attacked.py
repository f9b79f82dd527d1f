from __future__ import annotations

from collections.abc import Sequence

from stresslens.core.evidence import Row
from stresslens.core.findings import not_checked
from stresslens.core.types import Finding
from stresslens.plugins.audits._attack_names import attack_kind
from stresslens.plugins.audits._tables import assumed, impossible, of_one_model, out_of_order

AUDIT = "certified above attacked"
INSIDE = {"l1": 0, "l2": 1, "linf": 2}
"""A ball of one norm contains the balls of the norms before it, if their radius is the same."""


def certified_above_attacked(table: Sequence[Row]) -> Finding:
    """More images are certified than an attack inside the certified ball leaves correct.

    That is impossible for the same model on the same images: no attack breaks a certified image. An
    attack at a smaller radius, and the clean accuracy, are compared too. Randomised smoothing
    certifies the smoothed classifier, so the attack must be on that one. A sign from one image on,
    beyond rounding, serious from five images and half a point on; if n differs, it must be beyond
    chance.
    """
    pairs = [
        (row, certified)
        for rows in of_one_model(table)
        for certified in rows
        if attack_kind(certified.attack) == "certified"
        for row in rows
        if attack_kind(row.attack) != "certified" and _is_inside(row, certified)
    ]
    if not pairs:
        return not_checked(AUDIT, "the table has no certified accuracy beside a clean or an attacked one")
    wrong = [pair for pair in pairs if impossible(*pair)]
    return out_of_order(
        AUDIT,
        pairs,
        wrong,
        "no more is certified than is left correct",
        "more images are certified than are left correct by what the certificate excludes, "
        + assumed([row for pair in wrong for row in pair]),
        "One of the two is wrong: check the certificate's layers and its radius (norm, pixel units), that an "
        "image counts only if it is also classified correctly, and that both are of the same model.",
    )


def _is_inside(row: Row, certified: Row) -> bool:
    norm, around = row.norm or certified.norm or "linf", certified.norm or row.norm or "linf"
    return row.eps == 0 or (row.eps <= certified.eps * (1 + 1e-6) and INSIDE[norm] <= INSIDE[around])
