from __future__ import annotations

from collections.abc import Sequence

from stresslens.core.evidence import Row
from stresslens.core.findings import no_sign, not_checked, sign
from stresslens.core.types import Finding
from stresslens.plugins.audits._tables import attacked_rows, row_text

AUDIT = "reach of steps"


def reach_of_steps(table: Sequence[Row]) -> Finding:
    """All steps of an attack together cannot cross the ball: steps · step size < 2 radii.

    Serious if they cannot reach the edge from the centre (less than one radius). Otherwise minor:
    from a random start they cannot reach the far side.
    """
    known = [row for row in attacked_rows(table) if row.steps and row.step_size and row.eps > 0]
    if not known:
        return not_checked(AUDIT, "the table does not give steps with their size")
    short = [row for row in known if (row.steps or 0) * (row.step_size or 0) < 2 * row.eps * (1 - 1e-9)]
    if not short:
        return no_sign(AUDIT, f"in {len(known)} rows the steps cross the ball", len(known))
    ratio = {id(row): (row.steps or 0) * (row.step_size or 0) / row.eps for row in short}
    worst = min(short, key=lambda row: ratio[id(row)])
    return sign(
        AUDIT,
        f"{len(short)} of {len(known)} rows cannot cross their ball; {worst.steps} steps of "
        f"{worst.step_size:g} move at most {ratio[id(worst)] * worst.eps:.3g} of a radius of {worst.eps:g}",
        len(known),
        "Let steps times step size be at least twice the radius: a step of 2.5 radii over the number of "
        "steps is usual.",
        serious=ratio[id(worst)] < 1 - 1e-9,
        items=[
            f"{row_text(row)}: {row.steps} steps of {row.step_size:g} reach {ratio[id(row)]:.3g} radii"
            for row in short
        ],
    )
