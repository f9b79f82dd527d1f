from __future__ import annotations

from collections.abc import Sequence

from stresslens.core.evidence import Row
from stresslens.core.findings import no_sign, not_checked, sign
from stresslens.core.types import Finding
from stresslens.plugins.audits._attack_names import attack_kind
from stresslens.plugins.audits._tables import clean_of, ladders, least, row_text

AUDIT = "same at every radius"
FEWEST, FEW = 10.0, 2.0
"""So many further images at least should break at the largest radius: for two equal figures to count,
and for more."""
MANY = 500
"""Of fewer images than this, several small radii may break none."""
SLOWER = 10
"""They are counted at a tenth of the rate at which images break up to the smaller radius."""


def same_at_every_radius(table: Sequence[Row]) -> Finding:
    """The same attack leaves exactly the same accuracy at several radii, above 0 and below clean.

    A larger ball lets an attack break further images, so equal figures mean that the radius is not
    used. A sign for three radii or more, if at least two further images should have broken, at a tenth
    of the rate up to the smallest radius, or n is not known; for two radii if n is known and at least
    ten should have broken. It is minor if all of the
    figures, of at least 500 images, equal the clean accuracy, so that nothing breaks at all, for a
    single-step attack, or for a result of stresslens, where other audits attack the survivors
    again: the margins of some models are such.
    """
    checked, flat, idle = 0, [], []
    for rows in ladders(table):
        clean = clean_of(table, rows[0].model)
        rows = [row for row in rows if row.eps > 0 and attack_kind(row.attack) != "certified"]
        radii = {row.eps for row in rows}
        checked += len(radii) > 1
        for accuracy in {row.accuracy for row in rows if row.accuracy > 0}:
            equal = list({row.eps: row for row in rows if row.accuracy == accuracy}.values())
            if clean is not None and clean.accuracy - accuracy < least(clean, equal[0]):
                many = len(equal) > 2 and len(equal) == len(radii) and (equal[0].n or MANY) >= MANY
                idle += [equal] if many else []
            elif len(equal) > 1:
                equal = sorted(equal, key=lambda row: row.eps)
                known = clean is not None and equal[0].n is not None
                enough = FEWEST if len(equal) == 2 else FEW if known else 0.0
                flat += [equal] if _expected(clean, equal[0], equal[-1]) >= enough else []
    if not checked:
        return not_checked(AUDIT, "the table has no attack at two radii")
    if not flat and not idle:
        return no_sign(AUDIT, f"{checked} attacks leave another accuracy at another radius", checked)
    worst = max(flat or idle, key=len)
    return sign(
        AUDIT,
        f"{worst[0].attack} leaves {100 * worst[0].accuracy:.2f} % at each of the radii "
        f"{', '.join(f'{row.eps:g}' for row in worst)}" + ("" if flat else ", as without attack"),
        checked,
        "Check that the radius reaches the attack (an option of another name is ignored, a cached result is "
        "read again), that steps times step size grow with it, and that the figures were not copied.",
        serious=any(
            attack_kind(rows[0].attack) != "single step" and rows[0].largest_class is None for rows in flat
        ),
        items=[row_text(row) for rows in flat or idle for row in rows],
    )


def _expected(clean: Row | None, near: Row, far: Row) -> float:
    """The images that should break between two radii, at a tenth of the rate before; 0 if not known."""
    if clean is None or not near.n:
        return 0.0
    return (clean.accuracy - near.accuracy) * near.n * (far.eps / near.eps - 1) / SLOWER
